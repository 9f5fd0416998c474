"""Programs for type checkers alone: what is right, and what is wrong."""
