"""The door to MLflow, which is imported nowhere else: the store, its runs, its models."""
