"""Frozen encoders that were trained elsewhere: CLIP, ImageNet, rain perception."""
