"""Datasets: published layouts, images, prepared shards, batches of crops, synthetic rain."""
