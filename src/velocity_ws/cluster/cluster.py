"""Cluster: this node among the others: what the rest of a process calls. Only wires the other modules of the room.

Knows topics and nodes, and not which client is in which room: the broker tells it which rooms and users to listen for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, TypeVar

from velocity_ws.backplane.base import Backplane
from velocity_ws.cluster.envelopes import Heartbeat, Request, Response, StreamPiece, encode_body
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.link import Link
from velocity_ws.cluster.membership import Membership
from velocity_ws.cluster.notes import Notes
from velocity_ws.cluster.numbers import Numbers
from velocity_ws.cluster.options import ClusterOptions
from velocity_ws.cluster.orders import missed_orders
from velocity_ws.cluster.publisher import Entry, Publisher
from velocity_ws.cluster.receiver import InvalidEnvelopes, Logged, Receiver
from velocity_ws.cluster.routing import Arrivals, Deliver, routes
from velocity_ws.cluster.rpc import Procedure, Replies, Rpc
from velocity_ws.cluster.spreading import Spreading
from velocity_ws.cluster.subscriptions import Subscriptions
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger, quote
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Cluster"]

log = get_logger("velocity_ws.cluster")

A = TypeVar("A")
R = TypeVar("R")


class Cluster:
    """One node's part in the cluster. On the broker's loop only.

    Attributes:
        node_id: this node's id.
        timeout: seconds that a call waits for its answers.
        topics: the names of the cluster's topics.
        membership: the other nodes.
        notes: tells other nodes what needs no answer.
        subscriptions: the topics this node listens to.
        on_node_up: called with the id of a node that is heard for the first time.
        on_node_down: called with the id of a node that is gone.
        on_connected: called each time this node hears the others, after a start or a lost connection.
        on_dropped: called with a topic that is heard no more, and whether it is needed again meanwhile.
        logged: the logs of rooms, by their topics; they take what an engine has kept, where there are such.
        look: as for `Gaps`.
        take_piece: takes the pieces of streams that other nodes write, where there are such.
        orders: sees when this node may have missed what another has ordered all to do.
    """

    def __init__(
        self,
        backplane: Backplane,
        node_id: str,
        options: ClusterOptions,
        counters: Counters,
        deliver: Deliver,
        recipients: Callable[[Address], Iterable[str]],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            backplane: not connected.
            node_id: this node's id.
            options: how it takes part.
            counters: the node's.
            deliver: gives a message to the clients of this node that an address means.
            recipients: the ids of those clients, where it does so at once.
            clock: seconds, never going back.
        """
        self.node_id = node_id
        self.timeout = options.timeout
        self.topics = Topics(options.prefix)
        self.on_node_up: list[Callable[[str], None]] = []
        self.on_node_down: list[Callable[[str], None]] = []
        self.on_connected: list[Callable[[], None]] = []
        self._options = options
        self._clock = clock
        self._backplane = backplane
        self._own_topic = self.topics.node(node_id)
        self._heartbeats: asyncio.Task[None] | None = None
        self.orders = missed_orders(backplane, options, clock)
        self.logged: dict[str, Logged] = {}
        self.on_dropped: list[Callable[[str, bool], None]] = []
        self.look: Callable[[str, int], bool] = lambda *_: False
        self.take_piece: Callable[[StreamPiece], None] = lambda _: None
        self._gaps = Gaps(self.topics, counters, deliver, self.orders.missed, self._look)
        self._publisher = Publisher(backplane, node_id, options.timeout, options.queue_size, counters)
        self.notes = Notes(self._publisher, self.topics.nodes)
        spreading = Spreading(backplane, lambda: self._numbers.ask(()))
        self.subscriptions = Subscriptions(backplane, self._dropped, options.linger, spreading.wait)
        self.membership = Membership(
            node_id, options.lease, options.is_node, self._send_heartbeat, self._node_up, self._node_down, clock
        )
        invalid = InvalidEnvelopes(counters, clock)
        self._rpc = Rpc(options.timeout, invalid.drop)
        sent, heard_of_all = self._publisher.sent, self.membership.heard_of_all
        self._numbers = Numbers(backplane, sent, self._gaps, self._rpc, self.notes, self.call_all, heard_of_all)
        self._link = Link(backplane, self._publisher, self.subscriptions, self._own_topic, options.engine)
        self._receiver = Receiver(
            node_id,
            self._own_topic,
            gaps=self._gaps,
            arrivals=Arrivals(recipients, clock, options.is_of_kind),
            membership=self.membership,
            orders=self.orders,
            rpc=self._rpc,
            invalid=invalid,
            counters=counters,
            deliver=deliver,
            respond=lambda node_id, response: self._send(self.topics.node(node_id), response),
            probe_returned=self._link.probe_returned,
            logged=self.logged,
            take_piece=self._take_piece,
        )

    # --- life

    @property
    def is_healthy(self) -> bool:
        """Whether it hears what others publish, as far as was seen within the last seconds."""
        return self._link.is_healthy

    @property
    def why_unreached(self) -> str:
        """Why nothing can be published, where that is so."""
        return self._publisher.why

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that the engine carries; known once connected."""
        return self._backplane.max_payload

    async def start(self) -> None:
        """Connect and make itself known. Where the engine is not there in time, goes on and connects when it is."""
        self.subscriptions.add(self._own_topic)
        self.subscriptions.add_first(self.topics.nodes)
        if self._options.is_node:
            self.subscriptions.add(self.topics.all)
        heartbeats = self.membership.run(lambda: self.is_healthy, self._tick)
        self._heartbeats = asyncio.create_task(heartbeats, name="velocity-ws heartbeats")
        await self._link.start(self, self._receiver.received, self._options.patience)

    def stop_soon(self) -> None:
        """`stop` will be called soon: a connection that is lost from now on is not worth a warning."""
        self._link.stop_soon()

    async def stop(self) -> None:
        """Say goodbye to the other nodes, close the connection and give back the engine."""
        if self._heartbeats is not None:
            self._heartbeats.cancel()
            await asyncio.wait([self._heartbeats])
            self._heartbeats = None
        await self._rpc.stop()
        goodbye = self._send_heartbeat(None, Heartbeat("bye", 0.0)) if self._options.is_node else None
        if goodbye is not None:
            with contextlib.suppress(BackplaneUnavailable):
                await self._publisher.outcome(goodbye)
        await self._link.stop()
        self._backplane.release()
        self.membership.clear()

    def release(self) -> None:
        """Give back the engine without stopping, as the loop was closed. From any thread."""
        self._backplane.release()

    # --- messages for clients

    async def publish(self, address: Address, message: PreparedMessage, until: float | None = None) -> None:
        """Bring a message to the other nodes. Returns when the engine has it.

        Args:
            address: which clients it is for.
            message: the message.
            until: when its outcome is told at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
        """
        await self._publisher.publish(routes(self.topics, self.node_id, address, message), until)

    def subscribe(self, kind: Literal["room", "user"], name: str) -> None:
        """Listen for messages to a room or a user, which has a first client on this node."""
        self.subscriptions.add(self._gaps.track(kind, name))

    def unsubscribe(self, kind: Literal["room", "user"], name: str) -> None:
        """Listen no more for messages to a room or a user, which has no client on this node any more."""
        self.subscriptions.discard(self.topics.of(kind, name))

    async def wait_subscribed(self, kind: Literal["room", "user"], name: str) -> None:
        """Wait until messages to a room or a user are heard here; at most until the timeout is over.

        While there is no connection to the engine it does not wait: the return of the connection is a gap, of which
        the clients are told.
        """
        topic = self.topics.of(kind, name)
        confirmation = await self._wait_confirmed(topic)
        if confirmation is not None and not confirmation.done():
            self._gaps.suspect_until(topic, confirmation)

    def hold(self, topic: str) -> None:
        """Listen to a topic until `let_go`, be it needed by others or not."""
        self.subscriptions.hold(topic)

    def let_go(self, topic: str) -> None:
        """See `hold`."""
        self.subscriptions.let_go(topic)

    async def wait_held(self, topic: str) -> None:
        """Wait until a topic is heard here; at most until the timeout is over, and not without a connection."""
        await self._wait_confirmed(topic)

    async def _wait_confirmed(self, topic: str) -> asyncio.Future[None] | None:
        """What is done when a topic is heard, which it may be by now; ``None`` where it was."""
        confirmation = self.subscriptions.confirmation(topic)
        if confirmation is not None and self.is_healthy:
            await asyncio.wait([confirmation], timeout=self._options.timeout)
        return confirmation

    async def wait_heard(self, room: str) -> bool:
        """Wait as `wait_subscribed` does; whether messages to the room are heard here now."""
        await self.wait_subscribed("room", room)
        return self.subscriptions.is_confirmed(self.topics.room(room))

    def _look(self, room: str, missed: int) -> bool:
        return self.look(room, missed)

    def _take_piece(self, piece: StreamPiece) -> None:
        self.take_piece(piece)

    def _tick(self) -> None:
        self.orders.look()
        self._numbers.mark(self._clock())

    def _dropped(self, topic: str, is_needed: bool) -> None:
        self._gaps.unsubscribed(topic, is_needed)
        for function in self.on_dropped:
            function(topic, is_needed)

    # --- calls and notifications

    def register(self, procedure: Procedure[A, R], handler: Callable[[A], Awaitable[R]]) -> None:
        """Answer the calls of other nodes; see `Rpc.register`."""
        self._rpc.register(procedure, handler)

    async def call(self, procedure: Procedure[A, R], args: A, node_id: str) -> Replies[R]:
        """Call a procedure of one node."""
        await self.wait_discovered()
        topic = self.topics.node(node_id)
        return await self._rpc.call(procedure, args, [node_id], lambda request: self._send(topic, request))

    async def call_all(self, procedure: Procedure[A, R], args: A, *, lost: bool = False) -> Replies[R]:
        """Call a procedure of all other nodes, and wait for those that live, or are lost; others may hear it later."""
        await self.wait_discovered()
        topic, nodes = self.topics.nodes, self.membership.ids(lost=lost)
        if not nodes and not procedure.is_order:
            return Replies()
        return await self._rpc.call(procedure, args, nodes, lambda request: self._send(topic, request))

    def register_at_once(self, procedure: Procedure[A, R], function: Callable[[A], R]) -> None:
        """Answer the calls of other nodes by what cannot wait; see `Rpc.register_at_once`."""
        self._rpc.register_at_once(procedure, function)

    async def wait_discovered(self) -> None:
        """Wait a moment at most until the other nodes are known; not at all where there is no connection."""
        if self.is_healthy:
            await self.membership.wait_discovered()

    def on_notification(self, what: str, args: type[A], handler: Callable[[str, A], None]) -> None:
        """Have a function called for each notification of a name; see `Rpc.on_notification`."""
        self._rpc.on_notification(what, args, handler)

    async def _send(self, topic: str, body: Request | Response) -> None:
        await self._publisher.outcome(self._publisher.put(topic, encode_body(body)))

    # --- other nodes

    def _send_heartbeat(self, node_id: str | None, heartbeat: Heartbeat) -> Entry | None:
        topic = self.topics.nodes if node_id is None else self.topics.node(node_id)
        try:
            return self._publisher.put(topic, encode_body(heartbeat), is_vital=True)
        except BackplaneUnavailable as error:
            log.debug("a heartbeat was not sent: %s", error)
            return None

    def _node_up(self, node_id: str) -> None:
        for function in self.on_node_up:
            function(node_id)

    def _node_down(self, node_id: str) -> None:
        log.info("node %s is gone", quote(node_id))
        self._rpc.node_down(node_id)
        for function in self.on_node_down:
            function(node_id)

    # --- the connection

    def connecting(self) -> None:
        """The link will be up, perhaps. Called by the link before anything can arrive."""
        self._gaps.connecting()
        self.orders.connecting()

    async def connected(self) -> None:
        """The link is up: learn of the other nodes, and find out what was missed. Called by the link."""
        self.orders.arriving()
        await self.membership.discover()
        for function in self.on_connected:
            function()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._numbers.run())
            await self._gaps.run(self.subscriptions.is_confirmed, self._numbers.ask)

    def disconnected(self) -> None:
        """The link is down: whatever is published from now on may be missed. Called by the link."""
        self._gaps.suspect(self.subscriptions.needed)
        self._numbers.left()
