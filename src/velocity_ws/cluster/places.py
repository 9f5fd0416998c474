"""Places: refuses two brokers of one process on one engine under one name, which would be one cluster by mistake.

A place is an engine and a name on it. Knows nothing of what a broker does there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from velocity_ws.errors import BrokerError

__all__ = ["LocalBroker", "taking_place"]


class LocalBroker(Protocol):
    """A broker that may take a place.

    Attributes:
        name: the broker's.
        place: the engine and the name on it, the same for all that hear each other; ``None`` where it has no engine.
        is_twin: whether it may share its place with others that may.
    """

    name: str
    place: str | None
    is_twin: bool

    @property
    def has_begun(self) -> bool:
        """Whether it was started in this process, on a loop that is still open, and has not stopped yet."""


_holders: WeakSet[LocalBroker] = WeakSet()
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # or the lock would stay held in a process that is forked off right then
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextmanager
def taking_place(holder: LocalBroker) -> Iterator[None]:
    """Let a broker begin in the block, while no other does. It keeps its place until it has stopped. From any thread.

    Args:
        holder: the broker that begins.

    Raises:
        BrokerError: another one has the place, and they are not both twins.
    """
    with _lock:
        for other in _holders:
            if other is holder or other.place != holder.place or other.place is None or not other.has_begun:
                continue
            if not (other.is_twin and holder.is_twin):
                raise BrokerError(
                    f"another broker named {holder.name!r} runs on the same engine in this process, and the clients of "
                    "each would get what is sent to the other's. Give them names, as in Broker(name='internal'), "
                    "and they are apart; where they are to be two nodes of one cluster, as in tests, say "
                    "Broker(twin=True) of both"
                )
        yield
        _holders.add(holder)
