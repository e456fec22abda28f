"""The seven networks, one file each."""
