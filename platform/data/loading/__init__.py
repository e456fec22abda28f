"""Batches of crops from prepared shards: pixel cache, order, augmentation, loader, prefetch."""
