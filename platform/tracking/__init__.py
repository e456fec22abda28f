"""MLflow, which is imported nowhere else: runs, registry, and the outbox for both."""
