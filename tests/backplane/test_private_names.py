"""The private names of nats-py and redis-py that are used: all of them are written here, and the library has each.

A version of one of them that renames any fails here, by name, and not where a connection is lost one day.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

import velocity_ws
from velocity_ws.backplane.nats import _NatsClient
from velocity_ws.history.nats_requests import _InboxClient

OF_THE_CLIENT = (
    "_flusher_task",
    "_ping_interval_task",
    "_process_err",
    "_process_op_err",
    "_ps",
    "_reading_task",
    "_server_info",
    "_transport",
)
OF_ITS_TRANSPORT = ("_io_reader", "_io_writer")
OF_A_STREAM = ("_buffer",)
OF_A_CONNECTION = ("_parser", "_writer")
USED = {
    "backplane/nats.py": set(),
    "history/nats_requests.py": set(),
    "backplane/nats_client.py": {*OF_THE_CLIENT, *OF_ITS_TRANSPORT, *OF_A_STREAM},
    "backplane/redis.py": set(),
    "backplane/redis_cluster.py": set(),
    "backplane/redis_connection.py": {*OF_A_CONNECTION},
    "backplane/redis_pool.py": set(),
    "backplane/redis_slots.py": set(),
}
OVERRIDDEN = ("_process_err",)


def names_of_others(source: Path) -> set[str]:
    """The private names that a module takes from what it has not defined itself."""
    taken: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name)  # of ``self``
            (own if is_own else taken).add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            taken.add(node.value)  # for getattr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
    private = {name for name in taken - own if name.startswith("_") and not name.startswith("__")}
    return private | (set(OVERRIDDEN) & own)


@pytest.mark.parametrize("module", USED)
def test_every_private_name_that_is_used_is_written_down(module: str) -> None:
    source = Path(velocity_ws.__file__).parent / module
    assert names_of_others(source) == USED[module]


async def test_nats_py_has_them() -> None:
    missing = [f"Client.{name}" for name in OF_THE_CLIENT if not hasattr(Client(), name)]
    make: Callable[[], object] = TcpTransport
    transport = make()
    missing += [f"TcpTransport.{name}" for name in OF_ITS_TRANSPORT if not hasattr(transport, name)]
    missing += [f"StreamReader.{name}" for name in OF_A_STREAM if not hasattr(asyncio.StreamReader(), name)]
    missing += [] if hasattr(Client()._ps, "buf") else ["Client._ps.buf"]
    assert not missing, (
        f"nats-py {version('nats-py')} has no {', '.join(missing)}, which backplane/nats_client.py needs"
    )


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_called_as_it_was(name: str) -> None:
    kinds = (_NatsClient, _InboxClient, Client)
    *ours, theirs = (tuple(inspect.signature(getattr(kind, name)).parameters) for kind in kinds)
    assert ours == [theirs, theirs], f"nats-py {version('nats-py')} calls {name} with other arguments"


@pytest.mark.parametrize("kind", [Connection, SSLConnection, UnixDomainSocketConnection])
async def test_redis_py_has_them(kind: type[Connection]) -> None:
    missing = [name for name in OF_A_CONNECTION if not hasattr(kind(), name)]
    assert not missing, f"redis-py {version('redis')} has no {missing}, which backplane/redis_connection.py needs"
