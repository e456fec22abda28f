"""A sweep while it runs: the queue of segments, cohorts, Ray Tune, and the worker processes."""
