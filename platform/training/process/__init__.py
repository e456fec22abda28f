"""One process of a run: its device, its rank, requests to stop, and its watchdog."""
