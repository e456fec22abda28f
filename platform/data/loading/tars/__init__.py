"""Images decoded from the shards, while there is no complete cache, or instead of one."""
