"""MLflow, which is imported nowhere else: runs, the outbox for their records, and the registry."""
