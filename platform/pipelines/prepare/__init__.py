"""`derainctl prepare`: a published dataset into shards, index and manifest."""
