"""`serve`: a network behind HTTP, on Ray Serve, with a page to try it."""
