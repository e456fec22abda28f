"""One run: step, loop, checkpoints, divergence, cohorts. Independent of Ray and MLflow."""
