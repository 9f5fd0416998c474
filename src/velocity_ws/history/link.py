"""Link: a node's supervised connection to the store that keeps the logs of rooms, and all that is called on it.

Knows the contract of a store, and not what is kept.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from velocity_ws.history.asking import Asking
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.calls import Calls
from velocity_ws.history.items import Append, Appended
from velocity_ws.history.store_link import Part, StoreLink
from velocity_ws.history.writer import Then, Writer
from velocity_ws.stats import Counters

__all__ = ["HistoryLink"]


class HistoryLink(Asking, StoreLink):
    """A supervised connection to a store. On the broker's loop only.

    What is asked, or appended, has an outcome within the timeout; while there is no connection it is refused at once.
    """

    def __init__(
        self, store: HistoryStore, *, timeout: float, queue_size: int, counters: Counters, engine: str = ""
    ) -> None:
        """
        Args:
            store: not connected.
            timeout: seconds after which what was asked has an outcome, whatever it is (``WS_BACKPLANE_TIMEOUT``).
            queue_size: bytes of appends that may wait (``WS_BACKPLANE_QUEUE_SIZE``).
            counters: the node's; outcomes of appends are counted there, as those of what a `Publisher` publishes.
            engine: what the log calls the engine; without a password.
        """
        calls = Calls(timeout)
        Asking.__init__(self, store, calls, timeout)
        self._writer = Writer(store, calls, timeout, queue_size, counters)
        parts: list[Part] = [self._writer, *self.kinds]
        StoreLink.__init__(self, store, calls, parts, engine=engine, what="the history of rooms")

    def append(self, append: Append, then: Then, until: float | None = None) -> Coroutine[Any, Any, Appended]:
        """Append an entry, behind those for which this was awaited before. Cancelling it takes nothing back.

        Args:
            append: what to append, and where to.
            then: called with the result, once, as soon as the engine has the entry, in the order of appends; also when
                the caller was cancelled or its time is over. Not for a duplicate.
            until: when there is an outcome at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
            HistoryError: the idempotency key stands for another message.
        """
        return self._writer.append(append, then, until)
