"""Cluster: a node among others. Brings messages to the topics of those they are for, and what comes to its clients.

Knows topics, envelopes and who lives; who is in which room, its owner tells it. Used on one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from velocity_ws.backplane.base import Backplane
from velocity_ws.cluster.envelopes import (
    Answer,
    Ask,
    Beat,
    Body,
    Count,
    Foreign,
    Note,
    Post,
    Probe,
    Topic,
    decode_as,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
)
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.link import Link
from velocity_ws.cluster.membership import Roll
from velocity_ws.cluster.peers import Peers
from velocity_ws.cluster.publisher import Entry, Publisher
from velocity_ws.cluster.routing import Arrivals, routes
from velocity_ws.cluster.rpc import Question, Questions, Replies
from velocity_ws.cluster.subscriptions import LINGER, Interest
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger, quote
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Cluster", "ClusterOptions"]

log = get_logger("velocity_ws.cluster")

A = TypeVar("A")
R = TypeVar("R")

START_PATIENCE = 3.0
"""Seconds that a node which starts waits for the engine."""


@dataclass(frozen=True)
class ClusterOptions:
    """How a node takes part.

    Attributes:
        prefix: of its topics.
        timeout: seconds after which a publish or a question ends, whatever its outcome.
        lease: seconds unheard after which a node counts as gone.
        queue_size: bytes that may wait for the engine.
        linger: seconds that a subscription is kept when nobody needs it any more.
        patience: seconds that starting waits for the engine, before it goes on without.
        is_node: whether it has clients; else it only sends and asks.
        engine: what the log calls the engine.
    """

    prefix: str
    timeout: float = 1.0
    lease: float = 10.0
    queue_size: int = 8 * 1024 * 1024
    linger: float = LINGER
    patience: float = START_PATIENCE
    is_node: bool = True
    engine: str = ""


class Cluster:
    """See the module.

    Attributes:
        node_id: this node's.
        topics: of this cluster.
        peers: the other nodes.
        interest: what this node listens to.
    """

    def __init__(
        self,
        backplane: Backplane,
        node_id: str,
        options: ClusterOptions,
        counters: Counters,
        deliver: Callable[[Address, PreparedMessage], object],
        who: Callable[[Address], Iterable[str]],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            backplane: not connected.
            node_id: this node's.
            options: how it takes part.
            counters: of the node.
            deliver: gives a message to the clients of this node that it is for.
            who: the ids of those clients.
            clock: seconds, never going back.
        """
        self.node_id = node_id
        self.topics = Topics(options.prefix)
        self.peers = Peers(clock, self._came, self._went)
        self._roll = Roll(node_id, options.lease, options.is_node, self.peers, self._say, clock)
        self._options = options
        self._counters = counters
        self._deliver = deliver
        self._clock = clock
        self._backplane = backplane
        self._own = encode_header(node_id, 0)[:-8]
        self._own_topic = self.topics.node(node_id)
        self._publisher = Publisher(backplane, node_id, options.timeout, options.queue_size)
        self._gaps = Gaps(self.topics, counters, deliver)
        self._arrivals = Arrivals(who, clock)
        self._doubt = asyncio.Event()
        self._unconfirmed: set[asyncio.Future[None]] = set()
        self.interest = Interest(backplane, self._gaps.left, options.linger)
        self._link = Link(backplane, self._publisher, self.interest, self._own_topic, options.engine)
        self._questions = Questions(options.timeout, self._refuse)
        self._notes: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[str, Any], None]]] = {}
        self._pulse: asyncio.Task[None] | None = None
        self._complaint = 0.0
        self.on_came: list[Callable[[str], None]] = []
        self.on_went: list[Callable[[str], None]] = []
        self.on_hearing_again: list[Callable[[], None]] = []
        self._questions.on(_NUMBERS, self._numbers)

    # --- life

    @property
    def is_healthy(self) -> bool:
        """Whether it hears what others publish, as far as was seen within the last seconds."""
        return self._link.is_healthy

    async def start(self) -> None:
        """Begin; where the engine is not there within seconds, go on without and join when it is."""
        self.interest.need(self._own_topic)
        self.interest.need(self.topics.nodes)
        if self._options.is_node:
            self.interest.need(self.topics.all)
        self._pulse = asyncio.create_task(self._roll.call(lambda: self.is_healthy), name="velocity-ws pulse")
        await self._link.start(self, self._options.patience)

    def leave_soon(self) -> None:
        """It will be stopped: that a connection is lost from now on is nothing to be told of."""
        self._link.is_leaving = True

    async def stop(self) -> None:
        """Say goodbye, and end."""
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.wait([self._pulse])
            self._pulse = None
        await self._questions.close()
        goodbye = self._say(None, Beat("bye", 0.0)) if self._options.is_node else None
        if goodbye is not None:
            with contextlib.suppress(BackplaneUnavailable):
                await self._publisher.outcome(goodbye)
        await self._link.stop()
        self._backplane.release()
        self.peers.clear()

    def abandon(self) -> None:
        """Its loop was closed under it: give back what would outlive it."""
        self._backplane.release()

    # --- messages

    async def publish(self, address: Address, frame: PreparedMessage, until: float | None = None) -> None:
        """Bring a message to the other nodes; returns when the engine has it.

        Args:
            address: whom it is for.
            frame: the message.
            until: when its outcome is told, in the loop's time, whatever it is; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: it has not, or that is not known.
        """
        failure: BackplaneUnavailable | None = None
        waiting: list[Entry] = []
        until = self._publisher.until() if until is None else until
        try:
            for topic, body in routes(self.topics, self.node_id, address, frame):
                try:
                    waiting.append(self._publisher.put(topic, body))
                except BackplaneUnavailable as error:
                    failure = self._count(error)
            for entry in waiting:
                try:
                    await self._publisher.outcome(entry, until)
                    self._counters.backplane_sent += 1
                except BackplaneUnavailable as error:
                    self._count(error)
                    if failure is None or error.outcome == "unknown":
                        failure = error
            if failure is not None:
                raise failure
        finally:
            failure = None  # or it would refer to itself by way of this frame, and wait for the garbage collector

    def _count(self, error: BackplaneUnavailable) -> BackplaneUnavailable:
        if error.outcome == "unknown":
            self._counters.backplane_unknown += 1
        else:
            self._counters.backplane_refused += 1
        return error

    # --- what is listened to

    def opened(self, kind: Literal["room", "user"], name: str) -> None:
        """This node has a first client in a room, or of a user."""
        self.interest.need(self._gaps.remember(kind, name))

    def closed(self, kind: Literal["room", "user"], name: str) -> None:
        """It has no client in it any more."""
        self.interest.release(self.topics.of(kind, name))

    async def confirmed(self, kind: Literal["room", "user"], name: str) -> None:
        """Wait until what is published there is heard here.

        While the engine is not reached there is nothing to wait for: its return is a gap, of which the clients are
        told. It waits for the publish timeout at most.
        """
        topic = self.topics.of(kind, name)
        confirmation = self.interest.confirmation(topic)
        if confirmation is None:
            return
        if self.is_healthy:
            await asyncio.wait([confirmation], timeout=self._options.timeout)
        if not confirmation.done():
            self._gaps.begin([topic])
            if confirmation not in self._unconfirmed:
                self._unconfirmed.add(confirmation)
                confirmation.add_done_callback(self._settled)

    def _settled(self, confirmation: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(confirmation)
        self._doubt.set()

    # --- questions and notes

    def on(self, question: Question[A, R], handler: Callable[[A], Awaitable[R]]) -> None:
        """Answer a question of others."""
        self._questions.on(question, handler)

    async def ask(self, question: Question[A, R], args: A, node_id: str) -> Replies[R]:
        """Ask one node."""
        await self.introduced()
        inbox = self.topics.node(node_id)
        return await self._questions.ask(question, args, [node_id], lambda ask: self._send(inbox, ask))

    async def ask_all(self, question: Question[A, R], args: A) -> Replies[R]:
        """Ask all the other nodes that live. Those that were held up may hear it later, and are not waited for."""
        await self.introduced()
        everyone, nodes = self.topics.nodes, self.peers.ids()
        if not nodes and not question.is_order:
            return Replies()
        return await self._questions.ask(question, args, nodes, lambda ask: self._send(everyone, ask))

    async def introduced(self) -> None:
        """Wait a moment at most, until it is known who is there."""
        if self.is_healthy:
            await self._roll.introduced()

    def on_note(self, what: str, args: type[A], handler: Callable[[str, A], None]) -> None:
        """Have a function called with the sender and the content of each note of a name."""
        self._notes[what] = msgspec.msgpack.Decoder(args), handler

    def note(self, topic: str, what: str, args: object) -> None:
        """Tell others something, where they can be reached. Nothing is waited for."""
        try:
            self._publisher.put(topic, encode_body(Note(what, msgspec.Raw(encode_body(args)))))
        except BackplaneUnavailable as error:
            log.debug("a %s was not sent: %s", what, error)

    async def _send(self, topic: str, body: Ask | Answer) -> None:
        await self._publisher.outcome(self._publisher.put(topic, encode_body(body)))

    def _say(self, node_id: str | None, beat: Beat) -> Entry | None:
        """Send a beat to one node, or to all; what was queued."""
        topic = self.topics.nodes if node_id is None else self.topics.node(node_id)
        try:
            return self._publisher.put(topic, encode_body(beat), is_vital=True)
        except BackplaneUnavailable as error:
            log.debug("a beat was not sent: %s", error)
            return None

    # --- what arrives

    def received(self, topic: str, data: bytes) -> None:
        """Something came through the engine."""
        try:
            if data.startswith(self._own):
                if topic == self._own_topic and isinstance(probe := decode_body(data), Probe):
                    self._link.probe_returned(probe.nonce)
                return
            origin, number = decode_header(data)
            body = decode_body(data)
        except Foreign as error:
            self._refuse(topic, error)
            return
        try:
            self._gaps.arrived(topic, origin, number)
            self._take(origin, body)
        except Foreign as error:
            self._refuse(topic, error)
        except Exception:
            self._counters.errors += 1
            log.exception("a message of another node failed")

    def _take(self, origin: str, body: Body) -> None:
        match body:
            case Post():
                self._counters.backplane_received += 1
                self._deliver(self._arrivals.address_of(origin, body), PreparedMessage(body.payload, body.is_text))
            case Beat():
                self._roll.heard(origin, body)
            case Ask():
                self._questions.asked(body, lambda answer: self._send(self.topics.node(origin), answer))
            case Answer():
                self._questions.answered(origin, body)
            case Note():
                found = self._notes.get(body.what)
                if found is not None:
                    decoder, handler = found
                    handler(origin, decode_as(decoder, body.args))
            case Probe():
                pass

    def _refuse(self, topic: str, error: Exception) -> None:
        self._counters.backplane_invalid += 1
        if self._clock() >= self._complaint:
            self._complaint = self._clock() + 60
            log.warning("dropped what is no message of this version of ours on %s: %s", quote(topic), quote(error))

    # --- who is there

    def _came(self, node_id: str) -> None:
        for function in self.on_came:
            function(node_id)

    def _went(self, node_id: str) -> None:
        log.info("node %s is gone", quote(node_id))
        self._questions.gone(node_id)
        for function in self.on_went:
            function(node_id)

    async def hears(self) -> None:
        """The link is up: get to know the others, and find out what was missed, now and where it comes into doubt."""
        await self._roll.introduce()
        for function in self.on_hearing_again:
            function()
        while True:
            self._doubt.clear()
            await self._gaps.mend(self.interest.hears, self._ask_numbers)
            await self._doubt.wait()

    def deaf(self) -> None:
        """The link is down."""
        self._gaps.begin(self.interest.needed)

    async def _ask_numbers(self, topics: tuple[str, ...]) -> Replies[dict[str, int]]:
        return await self.ask_all(_NUMBERS, topics)

    async def _numbers(self, topics: tuple[str, ...]) -> dict[str, int]:
        sent = self._publisher.sent
        return {topic: count for topic in topics if (count := sent.count(topic))}


_NUMBERS: Question[tuple[str, ...], dict[str, int]] = Question("numbers", tuple[Topic, ...], dict[Topic, Count])
