"""A scope is a dictionary like any other, in half of the memory."""

from __future__ import annotations

import sys
from typing import Any

from velocity_ws.websocket.handshake import Handshake, Negotiator
from velocity_ws.websocket.scope import ExtensionKeys

HEADERS = [
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-protocol", b"a, b"),
]
NEGOTIATOR = Negotiator()


def scope() -> dict[str, Any]:
    """That of a handshake."""
    made = Handshake(NEGOTIATOR, b"/%C3%A4?room=1", HEADERS).scope(
        root_path="/app",
        asgi_version="3.0",
        scheme="ws",
        server=("127.0.0.1", 80),
        client=("10.0.0.1", 5000),
        state={"database": 1},
        extensions=vars(ExtensionKeys("own", 1)),
    )
    assert type(made) is dict
    return made


def test_a_scope_says_what_asgi_asks_for() -> None:
    assert scope() == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "root_path": "/app",
        "path": "/app/ä",
        "raw_path": b"/app/%C3%A4",
        "query_string": b"room=1",
        "headers": HEADERS,
        "subprotocols": ["a", "b"],
        "scheme": "ws",
        "server": ("127.0.0.1", 80),
        "client": ("10.0.0.1", 5000),
        "state": {"database": 1},
        "extensions": {"websocket.http.response": {}, "own": 1},
    }


def test_what_one_application_does_with_its_scope_is_in_no_other() -> None:
    first, second = scope(), scope()
    first["path_params"] = {"tenant": "a"}
    first["asgi"]["version"] = "2.0"
    del first["state"]
    assert "path_params" not in second
    assert second["asgi"]["version"] == "3.0"
    assert second == scope()


def test_a_scope_shares_its_table_of_keys() -> None:
    for _ in range(100):  # the first ones learn the keys
        made = scope()
    assert sys.getsizeof(made) < sys.getsizeof({**made}) / 2
    for each in ("asgi", "extensions"):
        assert sys.getsizeof(made[each]) < sys.getsizeof({**made[each]}) / 2
