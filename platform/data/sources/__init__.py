"""Datasets as they are published: known layouts, and which files form a pair."""
