"""Procedures: what nodes call on each other about their clients, and the types of it. Knows no client and no room."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from velocity_ws.broker.members import RoomMember, UserConnection
from velocity_ws.close import MAX_REASON_BYTES
from velocity_ws.cluster.envelopes import ClientId, Count, Name
from velocity_ws.cluster.rpc import Procedure
from velocity_ws.history.recovery import Reason as NoRecovery
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.stats import Stats

__all__ = [
    "CONNECTIONS",
    "COUNT",
    "DISCONNECT",
    "DISCONNECT_USER",
    "ENTER",
    "JOIN",
    "LEAVE",
    "MEMBERS",
    "REAUTHORIZE",
    "REAUTHORIZED",
    "REMOVE_USER",
    "STATS",
    "Where",
]

MAX_RECOVERIES = 64
"""Ways in which a recovery ends, of a node of any version."""

Code = Annotated[int, msgspec.Meta(ge=1000, le=4999)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_BYTES)]


def _are_clients(clients: Iterable[RoomMember | UserConnection]) -> bool:
    return all(
        node_of(client.client_id) is not None
        and node_of(f"{client.node}.x") is not None
        and math.isfinite(client.since)
        for client in clients
    )


def _are_members(members: list[RoomMember]) -> bool:
    return _are_clients(members) and all(len(member.user or "") <= MAX_NAME_LENGTH for member in members)


def _are_figures(stats: Stats) -> bool:
    figures = stats.to_dict()
    recoveries = figures.pop("recoveries")
    if len(recoveries) > MAX_RECOVERIES or max(map(len, recoveries), default=0) > MAX_NAME_LENGTH:
        return False
    return all(math.isfinite(value) and value >= 0 for value in [*figures.values(), *recoveries.values()])


JOIN: Procedure[tuple[str, str], bool] = Procedure("join", tuple[ClientId, Name], bool)
Where = tuple[str | None, bool | None, NoRecovery | None, int | None]
"""Of a `Joined`: all but its room."""
ENTER: Procedure[tuple[str, str, str | int | None], Where | None] = Procedure(
    "enter",
    tuple[ClientId, Name, Name | Count | None],
    tuple[Name | None, bool | None, NoRecovery | None, Count | None] | None,  # type: ignore[arg-type]
)
"""`JOIN` into a room with history; ``None`` where the client is not there."""
LEAVE: Procedure[tuple[str, str], bool] = Procedure("leave", tuple[ClientId, Name], bool)
DISCONNECT: Procedure[tuple[str, int, str], bool] = Procedure("disconnect", tuple[ClientId, Code, Reason], bool)
DISCONNECT_USER: Procedure[tuple[str, int, str], int] = Procedure(
    "disconnect_user", tuple[Name, Code, Reason], Count, is_order=True
)
REAUTHORIZE: Procedure[tuple[str | None, str | None], int] = Procedure(
    "reauthorize", tuple[Name | None, Name | None], Count, is_order=True
)
REAUTHORIZED: Procedure[tuple[int, float], bool] = Procedure("reauthorized", tuple[Count, Seconds], bool)
REMOVE_USER: Procedure[tuple[str, str], int] = Procedure("remove_user", tuple[Name, Name], Count, is_order=True)
CONNECTIONS: Procedure[str, list[UserConnection]] = Procedure("connections", Name, list[UserConnection], _are_clients)
MEMBERS: Procedure[str, list[RoomMember]] = Procedure("members", Name, list[RoomMember], _are_members)
COUNT: Procedure[str, int] = Procedure("count", Name, Count)
STATS: Procedure[None, Stats] = Procedure("stats", type(None), Stats, _are_figures)
