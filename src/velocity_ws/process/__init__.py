"""The process itself: open files, garbage collection, sibling processes. Knows no connection."""
