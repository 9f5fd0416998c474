"""What docs/migration.md shows before and after does the same, each on its own wire."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.support import DEADLINE, Address, Peer, serve
from tests.support.pages import blocks

BY_HAND, BY_HAND_AFTER, SOCKETIO, SOCKETIO_AFTER, CHANNELS, CHANNELS_AFTER = (
    block.source for block in blocks("docs/migration.md", "python")
)


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """An empty module, which annotations are looked for in."""
    module = types.ModuleType("a_program")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@asynccontextmanager
async def served(source: str, module: types.ModuleType) -> AsyncIterator[Address]:
    exec(compile(source, "docs/migration.md", "exec", dont_inherit=True), vars(module))
    async with serve(module.app) as server:
        yield server


@asynccontextmanager
async def two(server: Address, path: str) -> AsyncIterator[tuple[Peer, Peer]]:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(server.connect(path)) for _ in range(2)]
        yield one, other


async def test_the_browser_client_is_below_any_value_of_a_path_with_parameters(module: types.ModuleType) -> None:
    async with served(BY_HAND_AFTER, module) as server, httpx.AsyncClient(base_url=server.http) as http:
        for path in ("velocity.js", "health"):
            assert (await http.get(f"/ws/tea/{path}")).status_code == 200


@pytest.mark.parametrize(
    ("source", "said", "heard"),
    [
        (BY_HAND, {"type": "say", "text": "hello"}, {"type": "said", "by": "ann", "text": "hello"}),
        (BY_HAND_AFTER, {"event": "say", "data": "hello"}, {"event": "said", "data": {"by": "ann", "text": "hello"}}),
    ],
    ids=["before", "after"],
)
async def test_a_room_of_a_connection_manager(source: str, said: Any, heard: Any, module: types.ModuleType) -> None:
    async with served(source, module) as server, two(server, "/ws/tea?name=ann") as (ann, bob):
        async with server.connect("/ws/milk") as stranger:
            await ann.ws.send(json.dumps(said))
            assert await ann.receive() == await bob.receive() == heard
            await stranger.ws.send(json.dumps(said))
            assert (await stranger.receive()) != heard  # its own, as somebody


async def test_a_room_of_socketio(module: types.ModuleType) -> None:
    async def ask(peer: Peer, number: int, *message: Any) -> Any:
        await peer.ws.send(f"42{number}{json.dumps(message)}")
        while not (answer := str(await asyncio.wait_for(peer.ws.recv(), DEADLINE))).startswith(f"43{number}"):
            pass
        return json.loads(answer[3:])

    async with served(SOCKETIO, module) as server:
        async with two(server, "/socket.io/?EIO=4&transport=websocket") as (ann, bob):
            for peer in (ann, bob):
                assert str(await peer.ws.recv()).startswith("0")
                await peer.ws.send("40")
                assert str(await peer.ws.recv()).startswith("40")
            said = {"room": "tea", "text": "hello"}
            assert await ask(ann, 1, "say", said) == ["not your room"]
            for peer in (ann, bob):
                await ask(peer, 2, "enter", "tea")
            assert await ask(ann, 3, "say", said) == ["ok"]
            assert json.loads(str(await bob.ws.recv())[2:]) == ["said", "hello"]


async def test_the_same_room_after_it(module: types.ModuleType) -> None:
    async with served(SOCKETIO_AFTER, module) as server, two(server, "/ws") as (ann, bob):

        async def say(text: str) -> Any:
            await ann.send("say", text, room="tea", id=1)
            return await ann.receive()

        assert (await say("hello"))["data"]["code"] == "FORBIDDEN"
        for peer in (ann, bob):
            assert (await peer.request("join", {"room": "tea"}))["event"] == "reply"
        assert await say("hello") == {"event": "reply", "id": 1, "data": "ok"}
        assert await bob.receive() == {"event": "said", "data": "hello", "room": "tea"}


DJANGO = """
import os, sys
from pathlib import Path
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF="__main__",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(sys.argv[1]) / "db.sqlite3"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
urlpatterns = []
django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
from django.contrib.auth import SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore

user = get_user_model().objects.create_user("ann", password="x")
session = SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
cookie = {"cookie": f"sessionid={session.session_key}"}
"""

BEFORE = """
import asyncio
from channels.auth import AuthMiddlewareStack
from asgiref.testing import ApplicationCommunicator

async def main():
    application = AuthMiddlewareStack(ChatConsumer.as_asgi())

    async def connect(headers):
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers, "subprotocols": []}
        tab = ApplicationCommunicator(application, scope)
        await tab.send_input({"type": "websocket.connect"})
        return tab, (await tab.receive_output(10))["type"]

    assert (await connect([]))[1] == "websocket.close"
    headers = [(name.encode(), value.encode()) for name, value in cookie.items()]
    tabs = [await connect(headers) for _ in range(2)]
    assert [answer for _, answer in tabs] == ["websocket.accept"] * 2
    await tabs[0][0].send_input({"type": "websocket.receive", "text": '{"text": "hello"}'})
    for tab, _ in tabs:
        assert (await tab.receive_output(10))["text"] == '{"by": "ann", "text": "hello"}'
        await tab.send_input({"type": "websocket.disconnect", "code": 1000})
        await tab.wait(10)

asyncio.run(main())
"""

AFTER = """
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

with TestClient(application) as http:
    with http.websocket_connect("/ws") as stranger:
        try:
            stranger.receive_json()
        except WebSocketDisconnect as closed:
            assert closed.code == 4401
    with http.websocket_connect("/ws", headers=cookie) as ann, http.websocket_connect("/ws", headers=cookie) as other:
        ann.send_json({"event": "say", "data": "hello"})
        for tab in (ann, other):
            assert tab.receive_json() == {"event": "said", "data": {"by": "ann", "text": "hello"}}
"""


@pytest.mark.parametrize("source", [CHANNELS + BEFORE, CHANNELS_AFTER + AFTER], ids=["before", "after"])
async def test_a_group_of_channels(source: str, tmp_path: Path) -> None:
    # In a process of its own, as Django is configured once for a process.
    program = tmp_path / "program.py"
    program.write_text(f"{DJANGO}\n{source}\nprint('done')\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program), str(tmp_path)),
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert output.endswith("done\n"), output
