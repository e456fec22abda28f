"""A sweep while it runs: the queue of trials, cohorts, and the workers that train them."""
