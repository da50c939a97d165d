"""HTTP for every face: the edge, the router, bodies, errors and server-sent events."""
