"""Which trial comes next: grid and random lists, TPE, ASHA, population-based training."""
