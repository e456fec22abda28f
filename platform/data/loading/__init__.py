"""From prepared shards to batches: decoded-pixel cache, order, augmentation, prefetch."""
