"""The seven networks: one file each, plus CLIP-RPN's sub-network."""
