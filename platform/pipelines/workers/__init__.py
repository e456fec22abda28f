"""Work on the workers of a Ray cluster: how many there are, and chunks that outlive them."""
