"""One process of a run: its device, its rank, why it may stop, whether it hangs."""
