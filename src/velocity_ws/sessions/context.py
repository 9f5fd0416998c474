"""NodeContext: what a session needs of the process it lives in. Knows no node, no cluster and no life cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from velocity_ws.concurrency.eager import TaskPool
from velocity_ws.concurrency.portal import Portal
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.asks import AskTimes
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.client_session import Gone
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub, HubMember
from velocity_ws.sessions.logins import Logins
from velocity_ws.sessions.message_handling import MessageHandling
from velocity_ws.sessions.pacing import Pace
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters

__all__ = ["NodeContext"]

S = TypeVar("S", bound=HubMember)


async def no_resume(session: Any, said: Any) -> None:
    """Where no room has a history, no connection is asked where it stopped."""


@dataclass(slots=True)
class NodeContext(Generic[S]):
    """What all sessions of one node share; the node builds it. On the broker's loop only, but for `portal`.

    It is generic in its sessions only because they are defined on top of it.

    Attributes:
        node_id: the node's; new at each start.
        settings: the broker's.
        clock: says the time in seconds, never going back.
        portal: the way to the broker's loop.
        counters: what is counted.
        hints: what is logged once about how the broker is used.
        dispatcher: calls the hooks.
        messages: handles what clients say.
        kinds: the kinds of rooms.
        hub: the clients of this node and their rooms.
        flusher: writes at the end of a loop turn; new for another loop.
        pace: the turns of large messages; new at each start.
        workers: tasks that run hooks; new for another loop.
        gone: what a client that has gone is connected to.
        warn_size: bytes of a message from which a warning is logged.
        let_in: takes up a session that was accepted.
        remove: takes a client out of the hub, by its id; returns the rooms it was in.
        forget: hears that a session has ended.
        logins: when the logins of clients end.
        set_user: makes a session's client another user's; see `Client.set_user`.
        stop_soon: hears that the server is stopping, so that other nodes expect this one to go.
        ask_times: when questions to clients are due.
        welcome: hears that a session opens, and what greets it; returns what to run in place of that. ``None`` where
            no room has a history.
        resume: handles what a connection says first of where it stopped, and returns what to answer.
        leave_behind: keeps the task of a hook that swallowed its cancellation, and whose client it served.
    """

    node_id: str
    settings: Settings
    clock: Callable[[], float]
    portal: Portal
    counters: Counters
    hints: Hints
    dispatcher: Dispatcher
    messages: MessageHandling
    kinds: Kinds
    hub: Hub[S]
    flusher: Flusher
    pace: Pace
    workers: TaskPool
    gone: Gone
    warn_size: int
    let_in: Callable[[S], None]
    remove: Callable[[str], frozenset[str]]
    forget: Callable[[S], None]
    logins: Logins[Any]
    set_user: Callable[[S, Any, datetime | None], Awaitable[None]]
    stop_soon: Callable[[], None]
    leave_behind: Callable[[asyncio.Task[None], Client], None]
    welcome: Callable[[S, Coroutine[Any, Any, bool] | None], Coroutine[Any, Any, bool] | None] | None = None
    resume: Callable[[Any, Any], Awaitable[PreparedMessage | None]] = no_resume
    ask_times: AskTimes = field(default_factory=AskTimes)
