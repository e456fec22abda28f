"""Sweeps: search space, journal, estimate, and the sweep itself."""
