"""A cache of compressed tiles, for datasets whose decoded pixels exceed the budget."""
