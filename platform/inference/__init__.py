"""Using a trained network: images of any size, model folders, exported files."""
