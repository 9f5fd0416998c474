"""Roll: which nodes are there. Says that this one lives, hears that others do, and gets to know them at first.

Knows beats and leases; how a beat travels, its user knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from velocity_ws.cluster.envelopes import Beat
from velocity_ws.cluster.peers import Peers

__all__ = ["Roll"]

INTRODUCTION = 0.3
"""Seconds in which the others answer a hello; who has not by then is unknown until its next beat."""
BEATS_PER_LEASE = 4
LOOKS_PER_LEASE = 20
"""How often a node says that it lives, and looks who of the others still does."""


class Roll:
    """See the module.

    Attributes:
        peers: the other nodes.
    """

    def __init__(
        self,
        node_id: str,
        lease: float,
        is_node: bool,
        peers: Peers,
        say: Callable[[str | None, Beat], object],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            node_id: this node's.
            lease: seconds unheard after which the others count it as gone.
            is_node: whether it is one; else it only gets to know them.
            peers: the other nodes.
            say: sends a beat to one node, or to all.
            clock: seconds, never going back.
        """
        self.peers = peers
        self._node_id = node_id
        self._lease = lease
        self._is_node = is_node
        self._say = say
        self._clock = clock
        self._expected: set[str] = set()
        self._introduced = asyncio.Event()

    async def introduce(self) -> None:
        """Get to know the others: returns when all of them have answered, or after a moment."""
        self.peers.renew()
        self._expected = set()
        self._introduced.clear()
        self._say(None, Beat("hello", self._lease, (), self._is_node))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTRODUCTION):
                await self._introduced.wait()
        self._introduced.set()

    async def introduced(self) -> None:
        """Wait until they are known, or a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * INTRODUCTION):
                await self._introduced.wait()

    def heard(self, origin: str, beat: Beat) -> None:
        """A node said something about itself."""
        self.peers.heard(origin, beat)
        if beat.state == "hello" and self._is_node:
            self._say(origin, Beat("welcome", self._lease, tuple(self.peers.ids())))
        elif beat.state == "welcome":
            self._expected.update(beat.peers)
            self._expected.discard(self._node_id)
            if self._expected <= self.peers.ids():
                self._introduced.set()

    async def call(self, hears: Callable[[], bool]) -> None:
        """Say that this node lives, and see who else does, until cancelled.

        Args:
            hears: whether this node hears the others.
        """
        step = self._lease / LOOKS_PER_LEASE
        count, last = 0, self._clock()
        while True:
            await asyncio.sleep(step)
            now = self._clock()
            if not hears() or now - last > step + self._lease / BEATS_PER_LEASE:
                self.peers.renew()  # it was this node that could not hear them
            else:
                self.peers.expire()
            last = now
            count += 1
            if count % (LOOKS_PER_LEASE // BEATS_PER_LEASE) == 0 and hears() and self._is_node:
                self._say(None, Beat("alive", self._lease))
