"""Datasets as published: the catalogue of their layouts, and the search for pairs of files."""
