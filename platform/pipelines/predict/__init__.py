"""`derainctl predict`: images in, clean images out."""
