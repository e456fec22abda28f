"""Rain rendered on clean photographs, twelve of which ship with the package."""
