"""Descriptors left: whether a process can take further connections. Knows no protocol and no answer."""

from __future__ import annotations

import asyncio

from velocity_ws.process.descriptors import most_open

__all__ = ["DescriptorsLeft"]

RESERVE = 32
"""Descriptors that connections leave to what serves them: the application's files, its database, its engine."""
MANY = 64
"""Descriptors that have to be left for each connection until the next that is looked at."""
MOST_UNSEEN = 15
"""Connections that are not looked at, one after the other: fewer than `RESERVE`, so that none finds no descriptor."""


class DescriptorsLeft:
    """How many descriptors are left, by those that connections get.

    uvloop makes an object that tells a connection's, and asks the kernel for it. So while many are left, only one
    connection of some is looked at.
    """

    def __init__(self) -> None:
        self._enough = 0
        self._unseen = 0  # connections that come before the next that is looked at

    def are_there(self, newest: asyncio.BaseTransport) -> bool:
        """Whether there are some for further connections than the newest."""
        if self._unseen:
            self._unseen -= 1
            return True
        own = newest.get_extra_info("socket")
        if own is None:
            return True
        last: int = own.fileno()  # the kernel gives the lowest number that is free
        if last >= self._enough:  # a broker that starts with its first connection raises the limit after that
            most = most_open()
            self._enough = most - min(RESERVE, most // 8)
        self._unseen = min(MOST_UNSEEN, max(0, (self._enough - last) // MANY - 1))
        return last < self._enough
