"""For browsers: the chat page and the API's description."""
