"""`serve`: a network behind HTTP, on Ray Serve, with a page to try it."""

import os

KEY_VARIABLE = "DERAIN_API_KEY"
"""The environment variable with the key that requests need."""
MESSAGES = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1)}
"""Ray Serve reads it when it is imported, in each process: bytes of an image between two of them, 4
MiB without it."""
os.environ.update(MESSAGES)
