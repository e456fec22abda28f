"""Speed against peers and limits: `python -m benchmarks.NAME [--json]`; all: `make bench`."""
