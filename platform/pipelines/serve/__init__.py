"""`serve`: a network behind HTTP, on Ray Serve, with a page to try it."""

KEY_VARIABLE = "DERAIN_API_KEY"
"""The environment variable with the key that requests need."""
