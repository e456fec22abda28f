"""Losses and their dynamic schedules (DLS)."""
