"""Datasets: published layouts, prepared shards, batches of crops, rendered rain."""
