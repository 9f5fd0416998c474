"""Redis slots: which server of a Redis Cluster has which topic, as any of its servers says. Knows no commands.

The servers of a cluster share 16,384 slots; a name has one of them. What is between braces in a key names its slot, so
that all keys of a topic ``t`` that begin with ``{t}`` are on the server that carries the topic.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from redis.crc import key_slot
from redis.exceptions import RedisError

from velocity_ws.backplane.redis_connection import pool_of

__all__ = ["Slots", "ask_slots", "connections_to"]

SLOTS = 16384

T = TypeVar("T")


class Slots(Generic[T]):
    """What there is for each server, found by a topic."""

    def __init__(self, ranges: Sequence[tuple[int, T]]) -> None:
        """
        Args:
            ranges: the first slot of each range, in order, and what there is for its server.
        """
        self._firsts = [first for first, _ in ranges]
        self._values = [value for _, value in ranges]

    def of(self, topic: str) -> T:
        """What there is for the server that has a topic."""
        return self._values[bisect.bisect_right(self._firsts, key_slot(topic.encode())) - 1]


def connections_to(url: str, host: str, port: int) -> Callable[[], Any]:
    """What makes connections to one server of a cluster.

    Args:
        url: of any of them, as redis-py takes it; its user, password and options are those of all.
        host: the server's.
        port: the server's.
    """
    pool = pool_of(url)
    pool.connection_kwargs |= {"host": host, "port": port}
    make: Callable[[], Any] = pool.make_connection
    return make


async def ask_slots(url: str) -> list[tuple[int, tuple[str, int]]]:
    """Ask which server has which slots: for each range, in order, its first slot, and the host and port.

    Args:
        url: of any server, as redis-py takes it.

    Raises:
        ConnectionError: there is no server, or the cluster has none for some slots.
    """
    pool = pool_of(url)
    make: Callable[[], Any] = pool.make_connection
    connection = make()
    try:
        await connection.connect()
        await connection.send_command("CLUSTER", "SLOTS")
        reply = await connection.read_response()
    except RedisError as error:
        raise ConnectionError(str(error)) from error
    finally:
        await connection.disconnect(nowait=True)
    # A server that does not know its own address says none: then it is the one that was asked.
    own = str(pool.connection_kwargs.get("host", "127.0.0.1"))
    covered = sum(int(last) - int(first) + 1 for first, last, *_ in reply)
    if covered != SLOTS:
        raise ConnectionError(f"the cluster has a server for {covered} of {SLOTS} slots")
    return sorted((int(first), (main[0].decode() or own, int(main[1]))) for first, _, main, *_ in reply)
