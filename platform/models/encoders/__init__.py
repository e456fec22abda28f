"""Frozen encoders with weights trained elsewhere: CLIP, ImageNet, and CLIP as rain perception."""
