"""Revocation: has all nodes ask again who may be in rooms, and does so here when another has ordered it.

Knows nodes and orders, and neither a client nor a room: `Authorization` asks.

A node that gets the order holds what is said to the members that it means, before it looks at anything that arrived
later; then it confirms, and asks. So a node that has the confirmations of all others knows that nothing more reaches a
member before there is an answer. The answers are waited for as well, as long as their node is heard.

To ask twice does no harm. So an order that the engine may not have taken is given again.
"""

from __future__ import annotations

import asyncio
import itertools

from velocity_ws.broker.authorization import Authorization
from velocity_ws.broker.procedures import REAUTHORIZE, REAUTHORIZED
from velocity_ws.broker.questions import Round
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.messages.names import validate_text

__all__ = ["Revocation"]

Order = tuple[str | None, str | None]

EVERYBODY: Order = (None, None)
MAX_OWED = 100
"""Orders that are given again once the engine is reached; were there more, that all members are to be asked about."""


class Revocation:
    """The orders of this node and of others. On the broker's loop only."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._authorization: Authorization | None = None
        self._tickets: dict[int, Round] = {}
        self._numbers = itertools.count(1)
        self._owed: set[Order] = set()
        self._repeating: asyncio.Task[None] | None = None

    def begin(self, cluster: Cluster | None, authorization: Authorization | None) -> None:
        """Order other nodes, and do what they order, from now on.

        Args:
            cluster: the way to the others; ``None`` where there are none.
            authorization: asks; ``None`` where there are no clients.
        """
        self._cluster = cluster
        self._authorization = authorization
        if cluster is not None and authorization is not None:
            cluster.register_at_once(REAUTHORIZE, self._ordered)
            cluster.register(REAUTHORIZED, self._is_done)
            authorization.when_used(lambda: cluster.orders.on_missed.append(self._missed))

    def end(self) -> None:
        """Order nothing, and do nothing more."""
        self._cluster = self._authorization = self._repeating = None
        self._tickets.clear()
        self._owed.clear()

    async def stop(self) -> None:
        """Give no order again."""
        if self._repeating is not None:
            self._repeating.cancel()
            await asyncio.wait([self._repeating])

    async def reauthorize(self, room: str | None, user_id: str | None) -> None:
        """Ask, on all nodes, about the members of rooms, of one room, or of those of one user.

        Raises:
            BackplaneUnavailable: a node has not confirmed that it holds what is said to them.
            HookError: an ``authorize`` calls this, which would wait for itself.
        """
        if self._authorization is not None:
            self._authorization.refuse_inside("broker.reauthorize")
        cluster = self._cluster
        if cluster is not None:
            for name in (room, user_id):
                if name is not None:
                    validate_text(name)
        here = Round() if self._authorization is None else self._authorization.reauthorize(room, user_id)
        silent = None if cluster is None else await self._order(cluster, (room, user_id))
        await here.wait()
        if silent is not None:
            who = ", ".join(silent) or "the others"
            what = f"{who} did not confirm in time that members are asked again, and will ask when they hear of it"
            raise BackplaneUnavailable(what, "unknown", silent)

    async def _order(self, cluster: Cluster, order: Order) -> tuple[str, ...] | None:
        """Give an order; the nodes that have not confirmed it, and may live. ``None`` where all have."""
        replies = await cluster.call_all(REAUTHORIZE, order, lost=True)
        if not replies.is_sent:
            self._owe(cluster, order)
        asking = [(node_id, ticket) for node_id, ticket in replies.by_node.items() if ticket]
        if asking:
            await asyncio.gather(*[self._wait_done(cluster, *each) for each in asking])
        silent = {*replies.errors, *filter(cluster.membership.may_live, replies.missing)}
        return None if replies.is_sent and not silent else tuple(sorted(silent))

    async def _wait_done(self, cluster: Cluster, node_id: str, ticket: int) -> None:
        """Wait until a node has asked about all whom it holds; or it falls silent, and then holds them still."""
        while True:
            replies = await cluster.call(REAUTHORIZED, (ticket, cluster.timeout / 2), node_id)
            if replies.by_node.get(node_id, True):
                return

    # --- orders that the engine may not have

    def _owe(self, cluster: Cluster, order: Order) -> None:
        self._owed = {EVERYBODY} if len(self._owed) >= MAX_OWED else self._owed | {order}
        if self._repeating is None:
            self._repeating = asyncio.create_task(self._repeat(cluster), name="velocity-ws orders")

    async def _repeat(self, cluster: Cluster) -> None:
        try:
            while self._owed:
                await asyncio.sleep(cluster.timeout / 4)
                if cluster.is_healthy:
                    await self._give_again(cluster)
        finally:
            self._repeating = None

    async def _give_again(self, cluster: Cluster) -> None:
        """Give all that is owed, at once: each may wait for a node that does not answer."""
        orders, self._owed = list(self._owed), set()  # of which each may be owed anew, and then it counts, meanwhile
        replies = await asyncio.gather(*[cluster.call_all(REAUTHORIZE, order, lost=True) for order in orders])
        for order, reply in zip(orders, replies, strict=True):
            if not reply.is_sent:
                self._owe(cluster, order)

    # --- orders of others

    def _ordered(self, order: Order) -> int:
        """Hold what the order means, and begin to ask; a number to ask by whether that is done, 0 where it is."""
        round_ = Round() if self._authorization is None else self._authorization.reauthorize(*order)
        if round_.is_over:
            return 0
        number = next(self._numbers)
        self._tickets[number] = round_
        round_.on_over(lambda: self._tickets.pop(number, None))
        return number

    async def _is_done(self, args: tuple[int, float]) -> bool:
        number, seconds = args
        round_ = self._tickets.get(number)
        if round_ is not None:
            try:
                async with asyncio.timeout(seconds):
                    await round_.wait()
            except TimeoutError:
                return False
        return True

    def _missed(self) -> None:
        """There may have been an order, for anybody."""
        if self._authorization is not None:
            self._authorization.reauthorize()
