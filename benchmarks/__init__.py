"""What a delivered message costs, side by side with other ways to send it: ``python -m benchmarks``."""
