"""What a message costs that comes from another process, side by side: ``python -m benchmarks.cluster``."""
