"""What a worker tells those who watch it: log lines that say whose they are, and gauges."""
