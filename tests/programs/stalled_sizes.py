"""What the stalled-reader server and its test agree on."""

from __future__ import annotations

READERS = 199
"""Clients that read; one more does not."""
SIZE = 64 * 1024
"""Bytes of filler in each message."""
MESSAGES = 1024
"""So many of them are 64 MB."""
BATCH = 4
"""Messages after which a reader acknowledges; two batches may be on their way."""
