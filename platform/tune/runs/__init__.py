"""Runs and sweeps as things: listed, shown, compared, cleaned; plain files are the only source."""
