"""What readers of streams over HTTP cost, beside those of others: ``python -m benchmarks.http_streams``."""
