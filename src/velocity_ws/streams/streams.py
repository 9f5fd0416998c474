"""Streams: what one node does for streams: those it writes, and those that members of its rooms read. Only wires.

It sleeps, and costs nothing, until an application starts or asks for a stream, or another node has one: then it
connects to the engine, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from velocity_ws.backplane.urls import ALONE, engine_of
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import StreamPiece
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable, SettingsError
from velocity_ws.history.items import Refused
from velocity_ws.logs import get_logger, printable
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.calls import NOTICE, Calls
from velocity_ws.streams.durable import Durable
from velocity_ws.streams.entrances import Entrances
from velocity_ws.streams.factory import create_streams
from velocity_ws.streams.finding import Finding
from velocity_ws.streams.following import Following
from velocity_ws.streams.forks import Forks
from velocity_ws.streams.items import Summary, Times
from velocity_ws.streams.kept_streams import KeptStreams
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pulse import Pulse
from velocity_ws.streams.readers import GiveReady, Readers
from velocity_ws.streams.sources import Report, Sources
from velocity_ws.streams.tails import Tails
from velocity_ws.streams.watching import Watching

__all__ = ["Streams", "times_of"]

log = get_logger("velocity_ws.streams")

PATIENCE = 2.0
"""Seconds that a first use waits for the engine."""
AGAIN = 2.0
"""Seconds until an engine is asked again that could not say whether it has streams."""
LONGEST_MEMORY = 24 * 3600
"""Seconds for which an id is known at least, when what it said is gone; ten times as long as that was kept, or more."""


def times_of(settings: Settings) -> Times:
    """How long streams last."""
    memory = max(10 * settings.stream_ttl, LONGEST_MEMORY)
    return Times(*[round(seconds * 1000) for seconds in (settings.node_lease, settings.stream_ttl, memory)])


class Streams:
    """The streams of one node. On the broker's loop only.

    Attributes:
        sources: what the application lets say streams.
        readers: who reads them.
        entrances: when those begin to read who come into rooms.
        calls: what an application does with streams.
        tails: those that are read here as they are said, by their ids.
        kept: all of them, as requests find them.
        durable: those that requests write, each by itself.
        forks: the same, where some began with others.
        on_awake: called when there are streams.
        on_stop: called by `stop`.
    """

    def __init__(
        self,
        node_id: str,
        prefix: str,
        topics: Topics,
        settings: Settings,
        hub: Hub[Session],
        give_ready: GiveReady,
        report: Report,
        cluster: Cluster | None,
        clock: Callable[[], float],
        *,
        is_node: bool = True,
    ) -> None:
        """
        Args:
            node_id: this node's.
            prefix: what the topics of the cluster begin with.
            topics: their names.
            settings: the broker's.
            hub: the clients of this node.
            give_ready: gives a message to members for whom nothing waits; returns the others.
            report: tells of what a source raised.
            cluster: the way to the other nodes; ``None`` where there are never any.
            clock: seconds, never going back.
            is_node: whether it has clients; a process that only writes runs no embedded engine.
        """
        self._prefix = prefix
        self._topics = topics
        self._settings = settings
        self._hub = hub
        self._cluster = cluster
        times = times_of(settings)
        url = settings.backplane_url
        self._link = StreamLink(
            create_streams(url, prefix, is_node=is_node), timeout=settings.backplane_timeout, engine=engine_of(url)
        )
        self._pulse = Pulse(self._link, settings.stream_interval, times)
        self.sources = Sources(report, self._pulse)
        self.readers = Readers(hub, give_ready)
        self._following = self.readers.following = Following(
            self._link,
            self.readers,
            _nothing_to_wait_for if cluster is None else cluster.wait_heard,
            keep=0 if url.startswith(ALONE) else settings.history_ring,
            lease=settings.node_lease,
            clock=clock,
        )
        self.readers.finding = Finding(self._following, self._link)
        self._watching = Watching(
            self._following, self._link, node_id, lease=settings.node_lease, ttl=settings.stream_ttl, clock=clock
        )
        asking = Asking(self._link, node_id, times, topics.room, self._ended)
        self.kept = KeptStreams(self._link, topics, times, clock, time.time)
        self.tails = Tails(self._link, asking.look, cluster, clock, self.kept)
        self.entrances = Entrances(hub, self.readers, self._following, asking)
        self.calls = Calls(
            node_id,
            settings.stream_max_size,
            self.wake,
            self._link,
            asking,
            self._pulse,
            self.sources,
            self._following,
            self.tails,
            self._took,
            cluster,
        )
        self.durable = Durable(self.kept, self._link, topics, node_id, settings.stream_max_size, self._took)
        self.forks = Forks(self.kept, self.durable, self._link, topics, node_id)
        self._waking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._has_looked = cluster is None
        self.on_awake: list[Callable[[], None]] = []
        self.on_stop: list[Callable[[], None]] = []

    # --- life

    def start(self) -> None:
        """Find out, by and by, whether there are streams."""
        if self._cluster is not None:
            self._cluster.take_piece = self._take
            self._cluster.on_notification(NOTICE, bool, lambda *_: self.wake_soon())
            self._cluster.on_connected.append(self._look_soon)
            self._cluster.on_dropped.append(self._unheard)
        self._link.on_moved += [self._following.look_for_new, self.tails.look_soon]

    async def wait_found(self) -> None:
        """Wait until it is known whether there are streams, and for the connection if there are; for a while."""
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=PATIENCE)
        if self._waking is not None:
            await asyncio.wait([self._waking])

    @property
    def is_awake(self) -> bool:
        """Whether there are streams, as far as is known."""
        return self._waking is not None

    @property
    def is_looking(self) -> bool:
        """Whether it is still to be found out if there are streams of others."""
        return self._waking is None and not self._has_looked

    async def wake(self) -> None:
        """Be connected to the engine, from now on; returns when it is, or after a while.

        Raises:
            SettingsError: the engine never keeps streams; the text says what to do.
            BackplaneUnavailable: the broker is stopping.
        """
        if self.sources.is_stopping:
            raise BackplaneUnavailable("the broker is stopping")
        task = self._wake()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def wake_soon(self) -> None:
        """The same, without waiting: another node has streams."""
        if not self.sources.is_stopping:
            self._wake()

    def _wake(self) -> asyncio.Task[None]:
        if self._waking is None or (self._waking.done() and not self._waking.cancelled() and self._waking.exception()):
            self._waking = asyncio.create_task(self._begin(), name="velocity-ws streams start")
            self._waking.add_done_callback(_retrieve)
        return self._waking

    async def _begin(self) -> None:
        await self._link.start(PATIENCE)
        self._pulse.start()
        self._following.start()
        self._following.run(self._watching.run())
        self._hub.came = self.readers.came
        for function in self.on_awake:
            function()
        for room in self._hub.rooms():
            opened = self._following.open(room, self._topics.room(room))
            for session in self._hub.room_members(room):
                opened.waiting.add(session.id)
                self.entrances.begin(session, room)

    def _unheard(self, topic: str, is_needed: bool) -> None:
        if is_needed:
            self.tails.look_soon()
            self._following.deaf(topic)

    def _look_soon(self) -> None:
        """The other nodes are heard, at first or again."""
        self.tails.look_soon()
        self._following.look_for_new()
        if self._waking is None and self._looking is None and not self.sources.is_stopping:
            self._looking = asyncio.create_task(self._look(), name="velocity-ws streams look")

    async def _look(self) -> None:
        """Find out whether the engine has streams of others; where it never says, they are heard of when they begin."""
        try:
            while True:
                is_marked = await self._is_marked()
                if is_marked is not None or self._waking is not None:
                    break
                await asyncio.sleep(AGAIN)
        finally:
            self._looking = None
        self._has_looked = True
        if is_marked:
            self.wake_soon()

    async def _is_marked(self) -> bool | None:
        """Whether the engine has streams of others; ``None`` where it cannot say now."""
        store = create_streams(self._settings.backplane_url, self._prefix)
        try:
            async with asyncio.timeout(PATIENCE):
                await store.connect(lambda _: None)
                return await store.is_marked()
        except (OSError, SettingsError) as error:
            log.debug("it is not known whether the engine has streams: %s", printable(str(error)))
            return False if isinstance(error, SettingsError | Refused) else None
        finally:
            with contextlib.suppress(OSError):
                await store.close()
            store.release()

    async def finish(self, grace: float) -> None:
        """Let sources, and blocks that write, finish within ``WS_DRAIN_TIMEOUT``; see `Sources.finish`."""
        await self.sources.finish(self._settings.drain_timeout, grace)

    async def stop(self) -> None:
        """Follow and write nothing more, and close the connection."""
        self.sources.is_stopping = True
        self._hub.came = None
        for function in self.on_stop:
            function()
        tasks = [task for task in (self._looking, self._waking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.tails.stop()
        await self._following.stop()
        await self._pulse.stop()
        await self._link.stop()

    def release(self) -> None:
        """Give back the engine without stopping, as the loop was closed. From any thread."""
        self._hub.came = None
        self._link.release()

    def stop_soon(self) -> None:
        """`stop` will be called soon."""
        self._link.stop_soon()

    # --- rooms

    def opened(self, room: str) -> None:
        """A room has a first member here."""
        if self._hub.came is not None:
            self._following.open(room, self._topics.room(room))

    def closed(self, room: str) -> None:
        """A room has no member here any more."""
        self._following.close(room)

    def _took(self, room: str | None, id_: str, payload: bytes) -> None:
        """The engine has taken a piece of this node: its clients get it, as it is not heard here."""
        self.tails.heard(id_, payload)
        if room is not None:
            self._following.heard(room, id_, payload)

    def _ended(self, stream: Summary) -> None:
        """A stream was ended by this node, which does not hear that."""
        self.tails.look_soon(stream.id)
        self._following.ended(stream)

    def _take(self, said: StreamPiece) -> None:
        if self._waking is None:
            self.wake_soon()
        self.tails.heard(said.id, said.payload)
        self._following.take(said)


async def _nothing_to_wait_for(_room: str) -> bool:
    """There are no other nodes."""
    return True


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("streams of other nodes cannot be read here: %s", printable(str(error)))
