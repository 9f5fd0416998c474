"""Several nodes as one: messages, membership and questions that cross from process to process, over one backplane."""
