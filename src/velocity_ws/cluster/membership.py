"""Membership: which other nodes live; how often this one says that it does: every quarter of its lease.

Knows heartbeats and leases, and not how a heartbeat travels. A node that is unheard for 85 % of its lease counts as
gone, so that it is gone everywhere before the lease is over. While this node hears nothing itself, no lease runs. A
node that went without a goodbye may only have been held up: for a minute it counts as lost, and may live.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from velocity_ws.cluster.envelopes import Heartbeat

__all__ = ["Membership"]

HEARTBEATS_PER_LEASE = 4
"""How often a node says that it lives."""
CHECKS_PER_LEASE = 20
"""How often it looks which of the others still do."""
LEASE_PART = 0.85
"""The part of its lease that a node may be unheard."""
DISCOVERY_TIME = 0.3
"""Seconds in which the others answer a hello; a node that has not by then is unknown until its next heartbeat."""
LOST_FOR = 60.0
"""Seconds after its lease in which a node that was held up may go on as if nothing had been."""
MAX_LOST = 1000
"""Lost nodes that are remembered."""


class Membership:
    """The other nodes, as far as this one hears them. On the broker's loop only."""

    def __init__(
        self,
        node_id: str,
        lease: float,
        is_node: bool,
        send: Callable[[str | None, Heartbeat], object],
        node_up: Callable[[str], None],
        node_down: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            node_id: this node's.
            lease: seconds unheard after which the others count this node as gone.
            is_node: whether this is a node; else it only learns of the others.
            send: sends a heartbeat to the node of an id, or to all nodes for ``None``.
            node_up: called with the id of a node that is heard for the first time.
            node_down: called with the id of a node that is gone.
            clock: seconds, never going back.
        """
        self._node_id = node_id
        self._lease = lease
        self._is_node = is_node
        self._send = send
        self._node_up = node_up
        self._node_down = node_down
        self._clock = clock
        self._leases: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._lost: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._expected: set[str] = set()
        self._discovered = asyncio.Event()

    # --- what is known

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._until

    def __len__(self) -> int:
        return len(self._until)

    def ids(self, *, lost: bool = False) -> frozenset[str]:
        """The ids of the nodes that live, without this one; with ``lost``, of those too that are lost and may live."""
        return frozenset([*self._until, *self._lost] if lost else self._until)

    def may_live(self, node_id: str) -> bool:
        """Whether a node lives, or is lost and so may live."""
        return node_id in self._until or node_id in self._lost

    def heard_of_all(self) -> float | None:
        """When the one of the nodes was heard that was not heard for longest, of those too that are lost and may live.

        In seconds of the clock; ``None`` where there is none.
        """
        return min(self._heard.values(), default=None)

    async def wait_discovered(self) -> None:
        """Wait until the nodes that answered the last hello are known, or `DISCOVERY_TIME` twice over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * DISCOVERY_TIME):
                await self._discovered.wait()

    # --- heartbeats

    async def discover(self) -> None:
        """Say hello to all nodes. Returns when all that live have answered, or after `DISCOVERY_TIME`."""
        self.renew()
        self._expected = set()
        self._discovered.clear()
        self._send(None, Heartbeat("hello", self._lease, (), self._is_node))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCOVERY_TIME):
                await self._discovered.wait()
        self._discovered.set()

    async def run(self, is_healthy: Callable[[], bool], tick: Callable[[], None] = lambda: None) -> None:
        """Send heartbeats and let leases run out, until cancelled.

        Args:
            is_healthy: whether this node hears the others.
            tick: called as often as it looks whether leases are over, which is every twentieth of its own.
        """
        step = self._lease / CHECKS_PER_LEASE
        count, last = 0, self._clock()
        while True:
            await asyncio.sleep(step)
            tick()
            now = self._clock()
            if not is_healthy() or now - last > step + self._lease / HEARTBEATS_PER_LEASE:
                self.renew()  # it was this node that could not hear the others
            else:
                self.expire()
            last = now
            count += 1
            if count % (CHECKS_PER_LEASE // HEARTBEATS_PER_LEASE) == 0 and is_healthy() and self._is_node:
                self._send(None, Heartbeat("alive", self._lease))

    def received(self, origin: str, heartbeat: Heartbeat) -> None:
        """Take a heartbeat of another node, and answer a hello.

        Args:
            origin: the id of the node that sent it.
            heartbeat: what it said.
        """
        if heartbeat.is_node:
            self._note(origin, heartbeat)
        if heartbeat.state == "hello" and self._is_node:
            self._send(origin, Heartbeat("welcome", self._lease, tuple(self.ids())))
        elif heartbeat.state == "welcome":
            self._expected.update(heartbeat.peers)
            self._expected.discard(self._node_id)
            if self._expected <= self.ids():
                self._discovered.set()

    def _note(self, node_id: str, heartbeat: Heartbeat) -> None:
        self._lost.pop(node_id, None)
        if heartbeat.state == "bye":
            self._remove(node_id)
            self._heard.pop(node_id, None)
            return
        is_new = node_id not in self._until
        self._heard[node_id] = self._clock()
        self._leases[node_id] = heartbeat.lease
        self._until[node_id] = self._clock() + heartbeat.lease * LEASE_PART
        if is_new:
            self._node_up(node_id)

    # --- leases

    def renew(self) -> None:
        """Give every node a whole lease from now on, as this one could not hear them."""
        now = self._clock()
        self._until = {node_id: now + self._leases[node_id] * LEASE_PART for node_id in self._until}

    def expire(self) -> None:
        """Take out the nodes whose lease is over, and forget those that were lost for long enough."""
        now = self._clock()
        for node_id in [node_id for node_id, until in self._until.items() if until <= now]:
            self._remove(node_id)
            self._lost[node_id] = now + LOST_FOR
        over = [node_id for node_id, until in self._lost.items() if until <= now]
        over += list(self._lost)[: max(0, len(self._lost) - len(over) - MAX_LOST)]
        for node_id in dict.fromkeys(over):
            del self._lost[node_id]
            self._heard.pop(node_id, None)

    def clear(self) -> None:
        """Forget all nodes. No callback is called."""
        self._leases.clear()
        self._until.clear()
        self._heard.clear()
        self._lost.clear()

    def _remove(self, node_id: str) -> None:
        if self._until.pop(node_id, None) is not None:
            del self._leases[node_id]
            self._node_down(node_id)
