"""What a pair, a trial, a node and a writer cost, and what that predicts: guides/benchmarks.md."""
