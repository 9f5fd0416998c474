"""What streams cost, beside a message for each token and beside others: ``python -m benchmarks.streams``."""
