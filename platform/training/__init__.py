"""One run: step, loop, checkpoints, divergence, cohorts. Knows neither Ray nor MLflow."""
