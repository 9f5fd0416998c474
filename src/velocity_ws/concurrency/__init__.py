"""Concurrency: event loops, threads and tasks. Knows nothing of what runs in them."""
