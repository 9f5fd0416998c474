"""Node: builds the parts of one broker and wires them together. Knows no ASGI and no server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import ALONE, engine_of, split_url
from velocity_ws.broker.asides import Asides
from velocity_ws.broker.authorization import Authorization
from velocity_ws.broker.directory import Directory
from velocity_ws.broker.joining import Joining
from velocity_ws.broker.lifecycle import Aside, Lifecycle
from velocity_ws.broker.node_messages import NodeMessages
from velocity_ws.broker.outgoing import Outgoing
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.presence_policy import PresencePolicy
from velocity_ws.broker.room_logs import RoomLogs
from velocity_ws.broker.stream_events import StreamEvents
from velocity_ws.broker.users import Users
from velocity_ws.broker.wiring import Starting, build_cluster, build_histories, build_streams
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.topics import Topics, prefix_of
from velocity_ws.concurrency.eager import TaskPool
from velocity_ws.concurrency.portal import Portal
from velocity_ws.delivery.fanout import fan_out
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.delivery.transport_outbox import push
from velocity_ws.errors import BrokerError
from velocity_ws.history.histories import Histories
from velocity_ws.hooks.registry import Hooks
from velocity_ws.limits import ConnectionLimits
from velocity_ws.messages.ids import new_node_id
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.process.descriptors import prepare
from velocity_ws.sessions.client_session import Gone
from velocity_ws.sessions.context import NodeContext, no_resume
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub, Kind
from velocity_ws.sessions.logins import Logins
from velocity_ws.sessions.pacing import Pace
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import UNATTRIBUTED, Counters, Stats
from velocity_ws.streams.calls import Calls as StreamCalls
from velocity_ws.streams.streams import Streams

__all__ = ["Node"]


class Node:
    """One process's share of the clients. On the broker's loop only, but for `portal`, `tell` and `outgoing`.

    Attributes:
        settings: the broker's.
        portal: the way to the broker's loop.
        counters: what is counted.
        hub: the clients of this node and their rooms.
        hints: what is logged once about how the broker is used.
        dispatcher: calls the hooks.
        users: what users are called, and which client is whose.
        logins: when the logins of its clients end.
        directory: clients and their rooms, on all nodes.
        authorization: asks which clients may be in rooms.
        messages: what nodes tell each other.
        outgoing: what the application sends to clients.
        lifecycle: starts and stops it, with all its connections.
        context: what its sessions share.
        connection_limits: how many connections may be open.
        cluster: the way to the other nodes, while there are any.
        presence: the users in the rooms that have it, while it runs.
        histories: the rooms that have a history, while it runs.
        streams: what is written and read piece by piece, while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks,
        clock: Callable[[], float],
        user_id: Callable[[Any], str | int | None],
        has_presence: Callable[[str], bool] | None,
        name: str,
        is_twin: bool,
    ) -> None:
        url = settings.backplane_url
        self._prefix = prefix_of(split_url(url)[1], name)
        self.settings = settings
        self._clock = clock
        self._kinds = hooks.kinds
        self._presence_policy = PresencePolicy(has_presence, hooks.kinds)
        self.portal = Portal()
        self.counters = Counters()
        self._unattributed = UNATTRIBUTED.rejected
        self.hub: Hub[Session] = Hub(self._fan_out, self)
        self.hints = Hints(settings)
        self.logins: Logins[Session] = Logins(clock, settings.expiry_grace)
        self.users = Users(user_id, self.hub, self.hints, self.logins)
        self.dispatcher = Dispatcher(hooks, self.counters, self.hints, self.hub, self.users.refresh)
        node_id = new_node_id()
        self._topics = Topics(self._prefix)
        self._room_logs = RoomLogs(hooks.kinds, self._topics)
        self.directory = Directory(node_id, self.hub, self.stats, self._room_logs)
        self.authorization = Authorization(
            hooks.kinds, self.hub, self.dispatcher, self.directory, self.counters, self.hints, settings.send_queue_size
        )
        self.users.authorization = self.authorization
        Joining(hooks, self.hub, self.authorization, self.directory, settings.max_rooms_per_client).register()
        StreamEvents(hooks, self.hub, self.dispatcher.call, lambda: self.streams).register()
        self.messages = NodeMessages(hooks.node_handler, self.dispatcher.node, self.counters)
        self.lifecycle = Lifecycle(
            self,
            Asides(self._asides),
            self.portal,
            clock,
            name=name,
            place=None if url.startswith(ALONE) else f"{engine_of(url)} {self._prefix}",
            is_twin=is_twin,
            drain_timeout=settings.drain_timeout,
        )
        self.context = self._new_context(node_id)
        self.connection_limits = ConnectionLimits(settings.max_connections, settings.max_connections_per_ip)
        self.cluster: Cluster | None = None
        self._is_alone = url == ALONE
        self.histories: Histories | None = None
        self.streams: Streams | None = None
        self.outgoing = Outgoing(self.portal, self.hub, hooks.kinds, self._room_logs, is_alone=self._is_alone)
        if not self._is_alone:
            create_backplane(url)  # what is missing shows now, not when it is started
        self.presence: Presence | None = None
        self._starting = Starting(None, None)

    def _new_context(self, node_id: str) -> NodeContext[Session]:
        return NodeContext(
            node_id=node_id,
            settings=self.settings,
            clock=self._clock,
            portal=self.portal,
            counters=self.counters,
            hints=self.hints,
            dispatcher=self.dispatcher,
            messages=self.dispatcher.messages,
            kinds=self._kinds,
            hub=self.hub,
            flusher=Flusher(),
            pace=Pace(),
            workers=TaskPool(),
            gone=Gone(self.counters),
            warn_size=self.settings.warn_message_size or sys.maxsize,
            let_in=self._let_in,
            remove=self.directory.remove,
            forget=self.lifecycle.forget,
            logins=self.logins,
            set_user=self.users.set_user,
            stop_soon=self.stop_soon,
            leave_behind=self.lifecycle.leave_behind,
        )

    @property
    def id(self) -> str:
        """Its name among the others; new at each start."""
        return self.context.node_id

    @property
    def is_running(self) -> bool:
        """Whether connections are taken: started, on a loop that is still open, and not stopping."""
        return self.lifecycle.is_running

    # --- messages and rooms

    async def tell(self, event: str, payload: bytes) -> None:
        """Tell all nodes something; see `NodeMessages.tell`. From any loop, in a coroutine."""
        await self.portal.run(self.messages.tell, event, payload)

    def running_streams(self) -> StreamCalls:
        """What an application does with streams.

        Raises:
            BrokerError: it is not started.
        """
        if self.streams is None:
            raise BrokerError("the broker is not started, and so has no streams; start it, or serve it, first")
        return self.streams.calls

    def _fan_out(self, members: Iterable[Session], message: PreparedMessage) -> int:
        if message.size > self.context.warn_size:
            self.hints.large(message)
        return fan_out(members, message, self.counters, self.context.flusher)

    def _give_ready(self, members: Iterable[Session], message: PreparedMessage) -> list[Session]:
        """Offer a message to members for whom nothing waits; the others."""
        _, others = push(members, message, self.context.flusher)
        return [each for each in others if each.outbox is None or not each.outbox.is_free or not each.offer(message)]

    def _asides(self) -> list[Aside]:
        return [self.messages] if self.streams is None else [self.messages, self.streams.sources]

    def opened(self, kind: Kind, name: str) -> None:
        """A room, or a user, has a first client here."""
        if self.histories is not None and kind == "room":
            self.histories.opened(name)
        if self.cluster is not None:
            self.cluster.subscribe(kind, name)
        if self.streams is not None and kind == "room":
            self.streams.opened(name)

    def closed(self, kind: Kind, name: str) -> None:
        """It has none any more."""
        if self.cluster is not None and not (kind == "user" and name in self.users.expected):
            self.cluster.unsubscribe(kind, name)
        if kind == "room":
            if self.histories is not None:
                self.histories.closed(name)
            if self.streams is not None:
                self.streams.closed(name)

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, hears the other nodes, and reaches what its rooms remember."""
        if not self.is_running or (self.cluster is not None and not self.cluster.is_healthy):
            return False
        return self.histories is None or self.histories.is_up

    def stats(self) -> Stats:
        """The figures, as of now."""
        counters = {name: getattr(self.counters, name) for name in Counters.__slots__}
        counters["recoveries"] = dict(self.counters.recoveries)
        counters["rejected"] += UNATTRIBUTED.rejected - self._unattributed
        return Stats(
            connected_clients=len(self.hub), rooms=len(self.hub.rooms()), uptime=self.lifecycle.uptime, **counters
        )

    # --- what starts and stops with it

    def set_up(self) -> None:
        """Make what a running node needs, without waiting. On the broker's loop only."""
        self.context.pace = Pace()  # what the last one still had to do, its loop may not have done
        prepare(self.settings.max_connections)
        self.hints.misspelled()
        self.hints.alone()
        if not self._is_alone:
            self.context.node_id = new_node_id()  # and not what a process that was forked has too
            self.cluster = build_cluster(self, self._prefix, self.outgoing.is_of_kind, self._clock)
        policy = self._presence_policy
        self._kinds.is_without_presence = not policy.is_needed
        self._kinds.is_without_history = not self._kinds.has_history
        if policy.is_needed:
            most = self.settings.presence_max_users
            self.presence = Presence(self.id, policy, most, self.hub, self.cluster, self.counters, self.dispatcher)
        if self._kinds.has_history:
            self.histories = build_histories(self, self._topics, self._kinds, self._room_logs, self._clock)
        self.streams = build_streams(self, self._prefix, self._topics, self._give_ready, self._clock)
        self.streams.start()
        histories = self.histories
        reading = None if histories is None else histories.reading
        self.directory.begin(self.id, self.cluster, self.presence, self.authorization, histories, reading, self.streams)
        self.users.begin(self.cluster, self.presence)
        self.messages.begin(self.id, self.cluster)
        self.outgoing.begin(self.cluster, None if histories is None else histories.appending)

    async def begin(self) -> None:
        """Connect to the other nodes, and to what keeps the logs of rooms, where there are such."""
        cluster, histories, streams = self.cluster, self.histories, self.streams
        self._starting = Starting(histories, cluster)
        await self._starting.wait()
        if streams is not None:  # or those who come back at once would get again what they say they have
            await streams.wait_found()
        if self.cluster is not cluster or self.histories is not histories:
            raise BrokerError("the broker was stopped while it was starting")

    def stop_soon(self) -> None:
        """The server is stopping, and this will be stopped when its connections are over."""
        if self.cluster is not None:
            self.cluster.stop_soon()
        if self.histories is not None:
            self.histories.stop_soon()
        if self.streams is not None:
            self.streams.stop_soon()

    async def end(self) -> None:
        """End the workers and the cluster, when the last connection is over."""
        await self.authorization.stop()
        await self.directory.revocation.stop()
        await self.context.workers.stop()
        await self._starting.stop()
        cluster, presence, histories, streams = self.cluster, self.presence, self.histories, self.streams
        self._part()
        if streams is not None:
            await streams.stop()
        if presence is not None:
            await presence.stop()
        if histories is not None:
            await histories.stop()
        if cluster is not None:
            await cluster.stop()

    def let_go(self) -> None:
        """Let the threads of hooks go."""
        self.dispatcher.stop()

    def abandon(self) -> None:
        """Forget connections whose loop was closed under them: they can no longer end by themselves."""
        if self.cluster is not None:
            self.cluster.release()
        if self.histories is not None:
            self.histories.release()
        if self.streams is not None:
            self.streams.release()
        self._part()
        self.authorization.abandon()
        for session in self.lifecycle.sessions:
            self.hub.remove(session.id)
        self.users.expected.clear()
        self.context.flusher, self.context.workers = Flusher(), TaskPool()
        self.connection_limits = ConnectionLimits(self.settings.max_connections, self.settings.max_connections_per_ip)

    def _part(self) -> None:
        self.logins.end()
        self.cluster = self.presence = self.histories = self.streams = None
        self._kinds.is_without_presence = self._kinds.is_without_history = False
        self.hub.logs = self.context.welcome = None
        self.context.resume = no_resume
        self.directory.end()
        self.users.end()
        self.messages.end()
        self.outgoing.end()

    def _let_in(self, session: Session) -> None:
        self.lifecycle.sessions[session] = None
        self.hub.add(session)
        if self.users.expected:
            self.users.expect_no_more(session)
        self.counters.connections += 1
