"""Orders: when this node may have missed what another has ordered all nodes to do. Knows no order, and no engine.

An order is sent to all nodes, and each confirms it. One that could not hear it confirms nothing, and others may stop
waiting for it. So a node has to see by itself that it may have missed an order: its connection is new, or it stood
still for so long that others count it as gone, or a number is missing among what is said to all nodes. What has to be
done then is done before anything that has arrived is given to anybody.
"""

from __future__ import annotations

from collections.abc import Callable

from velocity_ws.backplane.base import Backplane
from velocity_ws.cluster.options import ClusterOptions

__all__ = ["MissedOrders", "missed_orders"]

LEASE_PART = 0.5
"""The part of its lease for which a node may stand still. Others wait for it for at least 0.6 of it: they count it as
gone when it was unheard for 0.85, and it says that it lives every quarter."""


class MissedOrders:
    """Whether orders may have been missed. On the broker's loop only.

    Attributes:
        on_missed: called when that may be so. Where there is none, it is not looked for.
    """

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        """
        Args:
            longest: seconds for which this node may stand still.
            clock: seconds, never going back.
        """
        self.on_missed: list[Callable[[], None]] = []
        self._longest = longest
        self._clock = clock
        self._seen = clock()
        self._is_new = True

    def connecting(self) -> None:
        """A connection begins: what was ordered before, on another one or none, was not heard."""
        self._is_new = True

    def look(self) -> None:
        """The loop runs. Called at least every twentieth of the lease, and before what arrives is given to anybody."""
        now = self._clock()
        late, self._seen = now - self._seen, now
        if late > self._longest:
            self.missed()

    def arriving(self) -> None:
        """Something has come through the connection, and will be given to somebody when this returns."""
        if self._is_new:
            self._is_new = False
            self._seen = self._clock()
            self.missed()
        else:
            self.look()

    def missed(self) -> None:
        """One may have been missed."""
        for function in self.on_missed:
            function()


def missed_orders(backplane: Backplane, options: ClusterOptions, clock: Callable[[], float]) -> MissedOrders:
    """What sees that a node may have missed orders.

    Args:
        backplane: the node's. Where it does not keep the order across topics, an order may be read after what was said
            later, and so the node may not stand still for longer than others wait for the confirmation of an order.
        options: how the node takes part.
        clock: seconds, never going back.
    """
    longest = options.lease * LEASE_PART
    return MissedOrders(longest if getattr(backplane, "is_ordered", True) else min(longest, options.timeout), clock)
