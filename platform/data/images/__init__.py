"""One image file: what its header says, its pixels as RGB uint8, its perceptual hash."""
