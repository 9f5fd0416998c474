"""The wrapper around Starlette's ``Mount.matches``: who gets it, and that it changes nothing for others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from tests.support import settings
from velocity_ws import Broker, WebSocketApp

ORIGINAL = """
from starlette.applications import Starlette
from starlette.routing import Mount
original = Mount.matches
import velocity_ws
from velocity_ws import Broker, Server, Settings, WebSocketApp, WebSocketMiddleware
settings = Settings(_env_file=None)
app = Starlette()
Broker(settings).attach(app)
Broker(settings).attach(app, "/rooms/{room:path}")
WebSocketMiddleware(app, Broker(settings))
Server(Broker(settings))
assert Mount.matches is original, "nobody asked for it"
WHAT
assert Mount.matches is not original, "asked for, and not done"
assert Mount.matches.__wrapped__ is original, "done twice"
"""


@pytest.mark.parametrize(
    "what", ["WebSocketApp(Broker(settings)), WebSocketApp(Broker(settings))", "Broker(settings).attach(app, '/')"]
)
def test_starlette_is_as_it_was_until_an_application_that_can_be_mounted_is_made(what: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", ORIGINAL.replace("WHAT", what)], check=False, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr


async def an_application(scope: Scope, receive: Receive, send: Send) -> None: ...


def scope_of(kind: str, path: str, *headers: tuple[bytes, bytes]) -> Scope:
    return {"type": kind, "path": path, "root_path": "", "headers": list(headers)}


SCOPES = [
    scope_of(kind, path, *headers)
    for kind in ("http", "websocket")
    for path in ("/here", "/here/", "/here/below", "/there", "/", "")
    for headers in ((), ((b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),))
]


def test_an_application_without_ours_is_matched_as_before() -> None:
    WebSocketApp(Broker(settings()))
    wrapped: Any = Mount.matches
    for app in (
        an_application,
        StaticFiles(directory="."),
        Starlette(),
        Starlette(routes=[Mount("/", an_application)]),
    ):
        mount = Mount("/here", app)
        for scope in SCOPES:
            assert wrapped(mount, dict(scope)) == wrapped.__wrapped__(mount, dict(scope)), scope


def test_ours_is_matched_where_starlette_finds_nothing_and_nowhere_else() -> None:
    mount = Mount("/here", WebSocketApp(Broker(settings())))
    wrapped: Any = Mount.matches
    differing = [scope for scope in SCOPES if wrapped(mount, dict(scope)) != wrapped.__wrapped__(mount, dict(scope))]
    assert {scope["path"] for scope in differing} == {"/here"}
    assert all(scope["type"] == "websocket" or scope["headers"] for scope in differing)
    assert len(differing) == 3
