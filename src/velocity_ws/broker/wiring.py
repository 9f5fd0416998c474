"""Wiring: builds, and starts, what a node has to do with an engine: its cluster, and what rooms remember.

Knows no message.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Protocol

from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import engine_of
from velocity_ws.broker.room_logs import RoomLogs, keep_description
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.options import START_PATIENCE, ClusterOptions
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BrokerError
from velocity_ws.history.factory import create_history
from velocity_ws.history.histories import Histories
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.unkept import Unkept
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.logs import quote
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.logins import Logins
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters
from velocity_ws.streams.announcing import Announcing
from velocity_ws.streams.readers import GiveReady
from velocity_ws.streams.streams import Streams

__all__ = ["Starting", "build_cluster", "build_histories", "build_streams"]


class Parts(Protocol):
    """What is needed of the node that this is for."""

    settings: Settings
    counters: Counters
    hub: Hub[Session]
    logins: Logins[Session]
    context: NodeContext[Session]
    dispatcher: Dispatcher
    cluster: Cluster | None
    histories: Histories | None


def build_cluster(node: Parts, prefix: str, is_of_kind: Callable[[str], bool], clock: Callable[[], float]) -> Cluster:
    """A node's part in its cluster, not started.

    Args:
        node: the node.
        prefix: what the names of the topics begin with.
        is_of_kind: whether what is sent to a room alone carries its name.
        clock: seconds, never going back.
    """
    settings = node.settings
    options = ClusterOptions(
        prefix=prefix,
        timeout=settings.backplane_timeout,
        lease=settings.node_lease,
        queue_size=settings.backplane_queue_size,
        engine=engine_of(settings.backplane_url),
        is_of_kind=is_of_kind,
    )
    backplane, hub = create_backplane(settings.backplane_url), node.hub
    return Cluster(backplane, node.context.node_id, options, node.counters, hub.deliver, hub.recipients, clock)


def build_histories(node: Parts, topics: Topics, kinds: Kinds, logs: RoomLogs, clock: Callable[[], float]) -> Histories:
    """What a node does for its rooms with history, not started.

    Args:
        node: the node, which has its cluster already.
        topics: the names of the cluster's topics.
        kinds: the application's kinds of rooms.
        logs: knows which rooms have a log.
        clock: seconds, never going back.
    """
    settings, cluster = node.settings, node.cluster
    link = HistoryLink(
        create_history(settings.backplane_url),
        timeout=settings.backplane_timeout,
        queue_size=settings.backplane_queue_size,
        counters=node.counters,
        engine=engine_of(settings.backplane_url),
    )
    histories = Histories(
        node.context.node_id,
        logs,
        link,
        cluster,
        node.hub,
        node.counters,
        settings,
        topics.secret,
        node.logins.left,
        clock,
        functools.partial(keep_description, link, topics, kinds),
    )
    node.context.welcome, node.context.resume = histories.resumptions.welcome, histories.resumptions.resume
    if cluster is not None:
        cluster.on_dropped.append(histories.unheard)
        cluster.on_connected.append(histories.heard_again)
        cluster.look = histories.look
        notify = functools.partial(cluster.notes.notify, topics.nodes)
        histories.unkept = Unkept(cluster, notify, link, histories.feeds, clock)
    return histories


def build_streams(
    node: Parts, prefix: str, topics: Topics, give_ready: GiveReady, clock: Callable[[], float]
) -> Streams:
    """What a node does for streams, asleep.

    Args:
        node: the node, which has its cluster and its histories already.
        prefix: what the names of the topics begin with.
        topics: the names of the cluster's topics.
        give_ready: gives a message to members for whom nothing waits; returns the others.
        clock: seconds, never going back.
    """

    async def report(error: BaseException, stream_id: str) -> None:
        await node.dispatcher.report(None, error, where=f"the source of stream {quote(stream_id)}")

    context = node.context
    streams = Streams(context.node_id, prefix, topics, node.settings, node.hub, give_ready, report, node.cluster, clock)
    histories = node.histories
    if histories is None:
        announcing = Announcing(streams.entrances.said, clock, node.settings.max_message_size)
        streams.entrances.waits_for = announcing.waits
        streams.on_awake.append(lambda: _announce(context, announcing))
        streams.on_stop.append(announcing.stop)
    else:
        streams.entrances.waits_for = histories.resumptions.waits_for
        histories.resumptions.on_said.append(streams.entrances.said)
    return streams


def _announce(context: NodeContext[Session], announcing: Announcing) -> None:
    context.welcome, context.resume = announcing.welcome, announcing.resume


class Starting:
    """The start of both, at the same time, as they wait for the same engine. On the broker's loop only."""

    def __init__(self, histories: Histories | None, cluster: Cluster | None) -> None:
        """
        Args:
            histories: what rooms remember; ``None`` where no room has a history.
            cluster: the node's part in its cluster; ``None`` where it is alone.
        """
        starts = [] if histories is None else [histories.start(START_PATIENCE)]
        starts += [] if cluster is None else [cluster.start()]
        self._tasks = [asyncio.create_task(start, name="velocity-ws start") for start in starts]

    async def wait(self) -> None:
        """Wait until both are there, or go on without. Cancelling this ends neither: clients may have come meanwhile.

        Raises:
            SettingsError: the engine never keeps logs.
            BrokerError: `stop` was called meanwhile.
        """
        if self._tasks:
            await asyncio.wait(self._tasks)
        if any(task.cancelled() for task in self._tasks):
            raise BrokerError("the broker was stopped while it was starting")
        for task in self._tasks:
            task.result()

    async def stop(self) -> None:
        """Wait for neither any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
