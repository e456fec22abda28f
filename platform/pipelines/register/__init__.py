"""`register`: what was trained or imported -> a version of a registered model; versions compared."""
