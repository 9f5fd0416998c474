"""Redis pool: makes the connections to one server, by redis-py, whose pooling is not used. Knows no topics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import hiredis  # noqa: F401 - said to be missing here, and not when a first connection is made
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

__all__ = ["pool_of"]

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


def pool_of(url: str) -> ConnectionPool:
    """A pool of redis-py that makes connections to the server of a URL; ``valkey://`` and ``valkeys://`` too.

    Raises:
        ValueError: redis-py does not take the URL, or an option in it.
    """
    scheme, colon, rest = url.partition(":")
    pool = ConnectionPool.from_url(_SCHEMES.get(scheme, scheme) + colon + rest)
    pool.max_connections = 2**31  # those that it makes are not its own, and it counts all that ever were
    # The reading of replies rests on these, whatever the URL says. RESP3 costs more for each message.
    pool.connection_kwargs |= {
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": _greet,
    }
    try:
        make: Callable[[], Any] = pool.make_connection
        make()  # which does not connect, and raises for options it does not know
    except (TypeError, RedisError) as error:
        raise ValueError(str(error)) from None
    return pool


async def _greet(connection: Any) -> None:
    """Log in on a new connection, and give it a name where the server's ACL allows that."""
    name, connection.client_name = connection.client_name or "velocity-ws", None
    await connection.on_connect()
    with contextlib.suppress(ResponseError):
        await connection.send_command("CLIENT", "SETNAME", name)
        await connection.read_response()
