"""Delivery: one message to many clients: outboxes bounded in bytes, and the fan-out into them. Knows no hub or hook."""
