"""`submit`, `logs`, `stop` and `status`: the same commands, as jobs of a Ray cluster."""
