"""Messages: what clients and servers say, decoded, encoded once for everyone, framed. Pure: no loop, socket or log."""
