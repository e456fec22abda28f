"""A single image file: its header, its pixels as RGB uint8, its perceptual hash."""
