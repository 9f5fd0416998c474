"""How much of everything, and how many connections fit. Knows no process."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "ROOM", "Sizes", "Spot", "fitting"]

ROOM = 100
"""Members of a room that is delivered to."""
RESERVED = 200
"""Descriptors that a process needs beside those of the connections that stay."""


@dataclass(frozen=True)
class Spot:
    """A server of a size.

    Attributes:
        clients: that stay, in rooms of `ROOM`.
        rooms: more rooms, with one client in each.
    """

    clients: int
    rooms: int = 0


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        visits: clients that come and go.
        at_once: how many of them are there at a time.
        storm: clients that come and stay, all at once.
        seconds: for which they come.
        others: clients that talk meanwhile.
        every: seconds from a message of each of these to its next.
        calm: seconds for which they talk before.
        echo_clients: that wait for an answer before they say something more.
        echoes: of each of them in a turn.
        turns: how often those that are compared take turns in a round.
        connections: the servers that differ in connections, by name, the smallest first.
        rooms: those that differ in rooms.
        messages: in a turn, to one room.
        sends: in a turn, to one user each.
        moves: in a turn: a client joins a room and leaves it.
        short_visits: clients that come and go in a turn.
        interval: seconds between keepalive pings, where the loop is watched.
        idle: seconds for which nothing is said there.
        broadcasts: to everybody there.
    """

    visits: int
    at_once: int
    storm: int
    seconds: float
    others: int
    every: float
    calm: float
    echo_clients: int
    echoes: int
    turns: int
    connections: Mapping[str, Spot]
    rooms: Mapping[str, Spot]
    messages: int
    sends: int
    moves: int
    short_visits: int
    interval: float
    idle: float
    broadcasts: int


def fitting(clients: int) -> int:
    """So many connections, or as many as fit into this machine's limit of descriptors."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return clients if limit == resource.RLIM_INFINITY else min(clients, limit - RESERVED)


def _by_connections(*sizes: int) -> dict[str, Spot]:
    return {f"{clients:,} connections": Spot(clients) for clients in sizes}


def _by_rooms(clients: int, *sizes: int) -> dict[str, Spot]:
    return {f"{rooms:,} rooms": Spot(clients, rooms - clients // ROOM) for rooms in sizes}


FULL = Sizes(
    visits=2000,
    at_once=50,
    storm=10_000,
    seconds=5,
    others=20,
    every=0.02,
    calm=2,
    echo_clients=100,
    echoes=50,
    turns=4,
    connections=_by_connections(100, 1000, 10_000, fitting(20_000)),
    rooms=_by_rooms(1000, 10, 1000, 100_000),
    messages=200,
    sends=4000,
    moves=4000,
    short_visits=500,
    interval=5,
    idle=12,
    broadcasts=5,
)
QUICK = Sizes(
    visits=20,
    at_once=5,
    storm=50,
    seconds=0.2,
    others=2,
    every=0.02,
    calm=0.1,
    echo_clients=3,
    echoes=3,
    turns=1,
    connections=_by_connections(ROOM, 2 * ROOM),
    rooms=_by_rooms(2 * ROOM, 2, 20),
    messages=4,
    sends=20,
    moves=10,
    short_visits=5,
    interval=0.3,
    idle=0.5,
    broadcasts=2,
)
