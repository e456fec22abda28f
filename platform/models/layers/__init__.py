"""The layers that the networks are built from."""
