"""What a name or a path on the command line stands for: a checkpoint, a config."""
