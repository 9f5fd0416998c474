"""What connections cost where applications do what they do when one comes: ``python -m benchmarks.connections``."""
