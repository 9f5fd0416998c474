"""What the server that is to be stopped and its clients agree on."""

from __future__ import annotations

ANSWER_EVERY = 5
"""The server answers one message in so many."""
PUBLISH_EVERY = 0.1
"""Seconds between two broadcasts."""
STUFFING = 128
"""Messages for a client that does not read."""
STUFFING_SIZE = 64 * 1024
"""Bytes of each; all of them are more than the sockets hold."""
LAST_WORDS = 3
"""Messages a client sends after it has seen the close frame, before it answers it."""
STUCK = 10
"""Clients that never read."""
LATE = 3
"""Clients that read only once the first has been told to go."""
HALF_DONE = 10
"""Handshakes that never become complete, half of them because of the client, half of the application."""
