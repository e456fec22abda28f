"""The search algorithms of a sweep; `algorithms.py` lists them, `base.py` is their interface."""
