"""The embedded engine: a NATS server that the processes of one machine run for each other. Knows bytes and topics."""
