"""Checks Kubernetes manifests of the server."""
