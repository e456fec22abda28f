"""`derainctl prepare`: a dataset as published -> shards, index and manifest."""
