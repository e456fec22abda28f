"""Scoring images: in this process or on Ray's workers, kept in parts, with progress."""
