"""Marks: bytes that nobody guesses, for the entries of logs. Knows no log.

They are drawn many at a time: to ask the system for each takes as long as to pack and keep the entry.
"""

from __future__ import annotations

import os
import secrets

from velocity_ws.history.positions import MARK_SIZE

__all__ = ["new_mark"]

DRAWN = 512
"""Marks that are drawn at once."""

_drawn: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)  # else parent and child would give the same ones


def new_mark() -> bytes:
    """A mark that was never given before, in this process or another. From any thread."""
    try:
        return _drawn.pop()
    except IndexError:
        data = secrets.token_bytes(DRAWN * MARK_SIZE)
    _drawn.extend(data[at : at + MARK_SIZE] for at in range(MARK_SIZE, len(data), MARK_SIZE))
    return data[:MARK_SIZE]
