"""A prepared dataset on disk: manifest, index, shards, their integrity and their card."""
