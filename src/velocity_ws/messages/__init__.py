"""What is said: decoded, encoded once for everyone, framed. Pure: no loop, no socket, no log."""
