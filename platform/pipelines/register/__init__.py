"""`register`: what was trained or imported -> a version of a model; `models`: versions compared."""
