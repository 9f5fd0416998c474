"""What it costs that rooms remember, beside rooms that do not: ``python -m benchmarks.history``."""
