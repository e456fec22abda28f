"""A prepared dataset on disk: manifest, index, shards, integrity checks and dataset card."""
