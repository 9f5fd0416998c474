"""Complaints: what the log is told of an engine that is not reached: each reason once, and when it is there again.

Knows no engine.
"""

from __future__ import annotations

import asyncio
import logging

from velocity_ws.logs import printable

__all__ = ["Complaints"]

MOST_COMPLAINTS = 5
"""Reasons that are told until there is a connection again; it may have been gone at first, and be a replica then."""


class Complaints:
    """Those about one connection. On the broker's loop only.

    Attributes:
        is_silent: whether a lost connection is not worth a warning, as it will be closed soon, or is.
    """

    def __init__(self, logger: logging.Logger, grace: float, again: str) -> None:
        """
        Args:
            logger: takes them.
            grace: seconds after which a loss is told: an engine that ends with one of its nodes, as all of them may be
                ending, is not missed at once.
            again: what is told when the engine is there again.
        """
        self.is_silent = False
        self._logger = logger
        self._grace = grace
        self._again = again
        self._reasons: set[str] = set()
        self._held: list[str] = []
        self._moment: asyncio.TimerHandle | None = None
        self._is_there = False

    def lost(self, why: str) -> None:
        """There is no connection; where this side or the others may be ending, that is told in a moment."""
        was_there, self._is_there = self._is_there, False
        if why in self._reasons or len(self._reasons) >= MOST_COMPLAINTS:
            return
        self._reasons.add(why)
        if self._moment is not None:
            self._held.append(why)
            return
        self._held = [why]
        if was_there and self._grace:
            self._moment = asyncio.get_running_loop().call_later(self._grace, self._tell)
        else:
            self._tell()

    def reached(self) -> None:
        """There is a connection."""
        self._is_there = True
        if self._reasons and self._moment is None:
            self._logger.warning("%s", self._again)  # as loud as what it ends
        self._reasons.clear()

    def end(self) -> None:
        """Forget what was, as the connection is closed."""
        self.is_silent = True
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        self._is_there = False
        self._reasons.clear()

    def _tell(self) -> None:
        self._moment = None
        held, self._held = self._held, []
        if self.is_silent:
            return
        then = "it is there again" if self._is_there else "trying again until it is there"
        for why in held:
            self._logger.warning("%s; %s", printable(why), then)
