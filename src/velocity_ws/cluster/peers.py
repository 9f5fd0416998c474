"""The other nodes: who lives, as far as is heard. Pure but for the clock it is given.

A node says every quarter of its lease that it lives. Unheard for a whole lease it is gone; while this node itself hears
nothing, nobody's lease runs. One that went so, without a word, may have been held up, and is lost for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from velocity_ws.cluster.envelopes import Beat

__all__ = ["Peers"]

PART = 0.85
"""What of its lease a node may be unheard, so that it is gone from all others before the lease is over."""
LOST_FOR = 60.0
"""Seconds after its lease in which a node that was held up may go on as if nothing had been."""
MAX_LOST = 1000
"""Such nodes that are remembered."""


class Peers:
    """The nodes this one knows, without itself."""

    def __init__(self, clock: Callable[[], float], came: Callable[[str], None], went: Callable[[str], None]) -> None:
        """
        Args:
            clock: seconds, never going back.
            came: called with a node that is heard for the first time.
            went: called with a node that is gone.
        """
        self._clock = clock
        self._came = came
        self._went = went
        self._leases: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._until

    def __len__(self) -> int:
        return len(self._until)

    def ids(self) -> frozenset[str]:
        """Who lives."""
        return frozenset(self._until)

    def may_live(self, node_id: str) -> bool:
        """Whether a node lives, or is lost, and so may."""
        return node_id in self._until or node_id in self._lost

    def heard(self, node_id: str, beat: Beat) -> None:
        """A node said something about itself."""
        if not beat.is_node:
            return
        self._lost.pop(node_id, None)
        if beat.state == "bye":
            self._remove(node_id)
            return
        is_new = node_id not in self._until
        self._leases[node_id] = beat.lease
        self._until[node_id] = self._clock() + beat.lease * PART
        if is_new:
            self._came(node_id)

    def renew(self) -> None:
        """This node was deaf, and hears again: everyone has a whole lease from now on."""
        now = self._clock()
        self._until = {node_id: now + self._leases[node_id] * PART for node_id in self._until}

    def expire(self) -> None:
        """Let those go that were not heard for their lease."""
        now = self._clock()
        for node_id in [node_id for node_id, until in self._until.items() if until <= now]:
            self._remove(node_id)
            self._lost[node_id] = now + LOST_FOR
        for node_id in [node_id for node_id, until in self._lost.items() if until <= now]:
            del self._lost[node_id]
        while len(self._lost) > MAX_LOST:
            del self._lost[next(iter(self._lost))]

    def clear(self) -> None:
        """Forget everyone, silently."""
        self._leases.clear()
        self._until.clear()
        self._lost.clear()

    def _remove(self, node_id: str) -> None:
        if self._until.pop(node_id, None) is not None:
            del self._leases[node_id]
            self._went(node_id)
