"""Several nodes as one: messages, membership and calls that cross from process to process, over one backplane."""
