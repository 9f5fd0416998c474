"""Emitter: messages to clients from a process that serves none, such as a worker, a cron job or a script.

Knows the cluster, in which it takes part without clients.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import ALONE, engine_of, split_url
from velocity_ws.broker.directory import Directory
from velocity_ws.broker.emitter_logs import EmitterLogs
from velocity_ws.broker.node_messages import tell_others
from velocity_ws.broker.room_logs import find_log, refuse_dedupe
from velocity_ws.broker.server_api import ServerAPI
from velocity_ws.broker.streams_api import StreamsAPI
from velocity_ws.broker.sync import SyncServerAPI
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.options import ClusterOptions
from velocity_ws.cluster.topics import MAIN, prefix_of
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import BackplaneUnavailable, BrokerError, SettingsError
from velocity_ws.history.items import Log
from velocity_ws.history.values import Sent
from velocity_ws.logs import get_logger, quote
from velocity_ws.messages.address import Address
from velocity_ws.messages.ids import new_node_id
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters
from velocity_ws.streams.calls import Calls as StreamCalls
from velocity_ws.streams.streams import Streams

__all__ = ["Emitter"]

log = get_logger("velocity_ws.broker")

T = TypeVar("T")


class Emitter(ServerAPI):
    """Reaches the clients of all nodes from outside: ``async with Emitter(url) as emitter: await emitter.broadcast(…)``

    It connects when it is first used, to the engine that the nodes use, and needs no server. ``emitter.sync`` blocks
    instead, for plain threads: ``Emitter(url).sync.to_room("news").send("notice", data)``; it runs an event loop in
    a thread of its own then, which gevent does not allow (`BrokerError`). What it returns counts clients of this
    process, and so is 0. Sources that run here, and blocks that write, have ``WS_DRAIN_TIMEOUT`` to finish when it is
    left; then they are cancelled, and their streams are ``lost``.
    """

    def __init__(self, url: str | None = None, *, name: str = MAIN, timeout: float = 1.0) -> None:
        """
        Args:
            url: the ``WS_BACKPLANE_URL`` of the nodes; by default that of this process.
            name: the name of the brokers whose clients it reaches.
            timeout: seconds that a send may take, including the first connection. A question (`members`) may take as
                long again once there is a connection.

        Raises:
            SettingsError: the URL is not valid, or is ``memory://``, which has no engine.
            InvalidNameError: ``name`` is not 1 to 32 letters, digits, - and _.
        """
        self._url = url or Settings().backplane_url
        if self._url == ALONE:
            what = "this process needs the engine that the nodes share; its URL is theirs of WS_BACKPLANE_URL"
            raise SettingsError({"WS_BACKPLANE_URL": what})
        create_backplane(self._url)
        self._prefix = prefix_of(split_url(self._url)[1], name)
        self._timeout = timeout
        self._hub: Hub[Session] = Hub()
        self._logs: EmitterLogs | None = None
        directory = Directory(new_node_id(), self._hub, None, self._log_of)
        super().__init__(Portal(), directory, self._ask, self._publish, self._tell)
        self._streams_api = StreamsAPI(self._ask, self._portal.run, self._running_streams)
        self._sync = SyncServerAPI(self)
        self._begin()

    def _begin(self) -> None:
        """Nothing is there: it was not used yet, or by another loop, or by the process that this one was forked off."""
        self._pid = os.getpid()
        self._cluster: Cluster | None = None
        self._logs = None
        self._streams: Streams | None = None
        self._directory.end()
        self._starting = asyncio.Lock()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def _give_back(self) -> None:
        """Give back the engine, as the loop that used it was closed under it."""
        if self._pid == os.getpid():  # else it is another process's
            for part in (self._cluster, self._logs, self._streams):
                if part is not None:
                    part.release()

    @property
    def sync(self) -> SyncServerAPI:
        """The blocking form of the methods that are awaited."""
        return self._sync

    def blocking_portal(self) -> Portal:
        """The way to its event loop; if there is none yet, one is started in a thread. From any thread."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._portal.loop is None:
                self._begin_loop(asyncio.new_event_loop())
        return self._portal

    def _begin_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        started, here, is_green = threading.Event(), threading.get_native_id(), False

        def run() -> None:
            nonlocal is_green
            is_green = threading.get_native_id() == here
            if is_green:
                started.set()
                return
            loop.call_soon(started.set)
            loop.run_forever()

        thread = threading.Thread(target=run, name="velocity-ws emitter", daemon=True)
        thread.start()
        started.wait()
        if is_green:
            loop.close()
            raise BrokerError(
                "gevent, or eventlet, has put its own in the place of threads, and none of them can run the event loop "
                "that 'sync' needs; await the Emitter's methods on a loop in a real thread, as in "
                "gevent.get_hub().threadpool.apply(asyncio.run, (send_it(),))"
            )
        self._give_back()
        self._cluster = self._logs = self._streams = None
        self._starting = asyncio.Lock()
        self._portal.settle(loop)
        self._thread = thread

    async def start(self) -> None:
        """Connect, on its event loop if it has one, else on the running one. From any loop, in a coroutine."""
        self._settle()
        await self._portal.run(self._started)

    def _settle(self) -> None:
        if self._portal.loop is None:
            self._give_back()
            self._begin()
            self._portal.settle(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Disconnect. It connects again when it is used again. From any loop, in a coroutine."""
        if self._portal.loop is not None:
            await self._portal.run(self._stop)

    def close(self) -> None:
        """Disconnect, and end the thread that ``sync`` has started; blocks, so call it in a plain thread."""
        loop, thread = self._portal.loop, self._thread
        if thread is None or loop is None:
            return
        self._portal.block(self._stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._thread = None
        self._portal.settle(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> SyncServerAPI:
        return self.sync

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _started(self) -> Cluster:
        async with self._starting:
            if self._cluster is None:
                options = ClusterOptions(
                    self._prefix,
                    timeout=self._timeout,
                    is_node=False,
                    patience=self._timeout,
                    engine=engine_of(self._url),
                )
                backplane, name = create_backplane(self._url, is_node=False), new_node_id()
                cluster = Cluster(backplane, name, options, Counters(), self._hub.deliver, lambda _: (), time.monotonic)
                engine, queue_size = options.engine, options.queue_size
                topics = cluster.topics
                logs = EmitterLogs(self._url, topics, name, timeout=self._timeout, queue_size=queue_size, engine=engine)
                self._directory.begin(name, cluster, None, reading=logs.reading)
                try:
                    await cluster.start()
                except BaseException:
                    await cluster.stop()
                    raise
                self._cluster, self._logs = cluster, logs
            return self._cluster

    async def _stop(self) -> None:
        async with self._starting:
            cluster, self._cluster = self._cluster, None
            logs, self._logs = self._logs, None
            streams, self._streams = self._streams, None
            await self._directory.revocation.stop()
            self._directory.end()
            if streams is not None:
                await streams.finish(self._timeout)
                await streams.stop()
            if logs is not None:
                await logs.stop()
            if cluster is not None:
                await cluster.stop()

    def _new_streams(self, cluster: Cluster) -> Streams:
        settings = Settings(backplane_url=self._url, backplane_timeout=self._timeout)
        args = (cluster.node_id, self._prefix, cluster.topics, settings, self._hub)
        return Streams(*args, lambda *_: [], _log, cluster, time.monotonic, is_node=False)

    def _running_streams(self) -> StreamCalls:
        if self._cluster is None:
            raise BrokerError("the emitter was stopped while this was waiting for it")
        if self._streams is None:
            self._streams = self._new_streams(self._cluster)
        return self._streams.calls

    @property
    def streams(self) -> StreamsAPI:
        """What is said piece by piece, by this process, too: its sources end with it; see `Emitter`."""
        return self._streams_api

    def _log_of(self, room: str) -> tuple[Log, bool] | None:
        return None if self._logs is None else self._logs(room)

    async def _publish(self, address: Address, message: PreparedMessage, dedupe: str | None = None) -> Sent:
        self._settle()
        return await self._portal.run(self._publish_here, address, message, dedupe)

    async def _publish_here(self, address: Address, message: PreparedMessage, dedupe: str | None) -> Sent:
        until = asyncio.get_running_loop().time() + self._timeout
        cluster = await self._started()
        if address.kind == "rooms" and self._logs is not None:
            await self._logs.learn(until)
            if (log := find_log(self._logs.logs, address, message)) is not None:
                (room,), appending = address.names, self._logs.appending
                done = await appending.append(room, log, message, address.excluded, dedupe, until)
                return Sent.of(0, done.packed, duplicate=done.is_duplicate)
        refuse_dedupe(dedupe)
        await cluster.publish(address, message, until)
        return Sent(0)

    async def _tell(self, event: str, payload: bytes) -> None:
        self._settle()
        await self._portal.run(self._tell_here, event, payload)

    async def _tell_here(self, event: str, payload: bytes) -> None:
        until = asyncio.get_running_loop().time() + self._timeout
        await tell_others(await self._started(), event, payload, until)

    async def _ask(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        self._settle()
        return await self._portal.run(self._ask_here, function, *args)

    async def _ask_here(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        cluster = await self._started()
        if not cluster.is_healthy:
            raise BackplaneUnavailable(cluster.why_unreached)
        if self._logs is not None:
            await self._logs.learn(asyncio.get_running_loop().time() + self._timeout)
        return await function(*args)


async def _log(error: BaseException, stream_id: str) -> None:
    log.error("exception in the source of stream %s", quote(stream_id), exc_info=error)
