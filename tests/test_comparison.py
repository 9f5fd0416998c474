"""The same application with velocity-ws and with python-socketio does the same, and the page says what each takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jwt
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from docs.comparison import count, store
from tests.support import DEADLINE, Address, eventually, serve

ROOT = Path(__file__).parents[1]
NAMES = {name: user_id for user_id, name in store.users.items()}


def token_of(name: str, seconds: float = 60.0, **changes: Any) -> str:
    claims = {"sub": str(NAMES[name]), "exp": time.time() + seconds, **changes}
    return jwt.encode({key: value for key, value in claims.items() if value is not None}, store.SECRET)


class Visitor(ABC):
    """Somebody who is connected. Keeps what comes, but for answers.

    Attributes:
        module: the application.
        path: where it takes connections.
    """

    module: str
    path: str

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.events: list[tuple[str, Any]] = []
        self.here: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.answers: dict[int, Any] = {}
        self.asked = 0

    @abstractmethod
    async def begin(self) -> None:
        """Say what has to be said first."""

    async def listen(self) -> None:
        """Until the connection is over, or this is cancelled."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self.ws:
                await self.heard(str(text))

    async def expect(self, event: str) -> Any:
        """What the next one of an event brought; those of others before it are forgotten."""
        await eventually(lambda: any(name == event for name, _ in self.events))
        while self.events:
            name, data = self.events.pop(0)
            if name == event:
                return data
        raise AssertionError

    async def ask(self, event: str, document_id: int, **data: Any) -> str:
        """Send something of a document; ``ok``, or the code that says why not."""
        self.asked += 1
        await self.send(event, document_id, self.asked, data)
        await eventually(lambda: self.asked in self.answers)
        code: str = self.answers.pop(self.asked)
        return code

    async def sees(self, **people: int) -> None:
        """Wait until these are here by presence, with so many connections each."""
        await eventually(lambda: self.here == people)

    @abstractmethod
    async def heard(self, text: str) -> None:
        """Take a message as it came."""

    @abstractmethod
    async def send(self, event: str, document_id: int, number: int, data: dict[str, Any]) -> None:
        """Send a request."""


class OfVelocity(Visitor):
    module = "with_velocity_ws"
    path = "/ws"

    async def begin(self) -> None:
        """Nothing has to be said."""

    async def heard(self, text: str) -> None:
        message = json.loads(text)
        event, data = message["event"], message["data"]
        if message.get("id"):
            self.answers[message["id"]] = "ok" if event == "reply" else data["code"]
        elif event == "presence":
            assert re.fullmatch(r"document:\d", data["room"])
            self.names |= {user: info["name"] for user, info in data.get("info", {}).items()}
            told = {self.names[user]: number for user, number in data["users"].items()}
            now = told if data["full"] else {**self.here, **told}
            self.here = {name: number for name, number in now.items() if number}
        else:
            self.events.append((event, data))

    async def send(self, event: str, document_id: int, number: int, data: dict[str, Any]) -> None:
        room = f"document:{document_id}"
        message = {"data": {"room": room}} if event in ("join", "leave") else {"room": room, "data": data}
        await self.ws.send(json.dumps({"event": event, "id": number, **message}))


class OfSocketIO(Visitor):
    """Engine.IO 4 and Socket.IO 5, as far as it takes."""

    module = "with_socketio"
    path = "/socket.io/?EIO=4&transport=websocket"

    async def begin(self) -> None:
        """Connect to the namespace, where the server's ``connect`` handler may refuse."""
        async with asyncio.timeout(DEADLINE):
            assert str(await self.ws.recv()).startswith("0")
            await self.ws.send("40")
            if not str(answer := await self.ws.recv()).startswith("40"):
                raise ConnectionRefusedError(answer)

    async def heard(self, text: str) -> None:
        if text == "2":
            await self.ws.send("3")
        elif text == "41":  # out of the namespace; to close the connection is the client's part
            await self.ws.close()
        elif text.startswith("42"):
            event, data = [*json.loads(text[2:]), None][:2]
            if event == "presence":
                self.here = {user["name"]: user["connections"] for user in data["users"].values()}
            else:
                self.events.append((event, data))
        elif found := re.match(r"43(\d+)", text):
            (answer,) = json.loads(text[found.end() :])
            self.answers[int(found[1])] = "ok" if "ok" in answer else answer["error"]["code"]

    async def send(self, event: str, document_id: int, number: int, data: dict[str, Any]) -> None:
        await self.ws.send(f"42{number}{json.dumps([event, {'document_id': document_id, **data}])}")


class Site:
    """One of the two, on a real server."""

    def __init__(self, address: Address, visitor: type[Visitor]) -> None:
        self.address = address
        self.visitor = visitor

    @asynccontextmanager
    async def visit(
        self, name: str, token: str | None = None, document_id: int | None = None
    ) -> AsyncIterator[Visitor]:
        """Somebody connected, in a document's room where one is given."""
        headers = {"Cookie": f"session={token_of(name) if token is None else token}"}
        async with self.address.connect(self.visitor.path, additional_headers=headers) as peer:
            visitor = self.visitor(peer.ws)
            await visitor.begin()
            listening = asyncio.create_task(visitor.listen())
            try:
                if document_id is not None:
                    assert await visitor.ask("join", document_id) == "ok"
                yield visitor
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening

    async def ask(self, method: str, path: str, name: str, **params: str) -> int:
        """The status of a route's answer to somebody."""
        async with httpx.AsyncClient(base_url=self.address.http, cookies={"session": token_of(name)}) as http:
            return (await http.request(method, path, params=params)).status_code


@pytest.fixture(params=[OfVelocity, OfSocketIO], ids=lambda visitor: visitor.module)
async def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("WS_EXPIRY_GRACE", "0.1")  # read by the first who imports it
    module = import_module(f"docs.comparison.{request.param.module}")
    monkeypatch.setattr(module, "roles", dict(store.roles))
    async with serve(module.app) as address:
        yield Site(address, request.param)


@pytest.mark.parametrize(
    "wrong", ["", "no token", token_of("Ann", -1), token_of("Ann", exp=None), token_of("Ann")[:-3]]
)
async def test_who_has_no_valid_token_is_not_let_in(site: Site, wrong: str) -> None:
    with pytest.raises((InvalidStatus, ConnectionRefusedError)):
        async with site.visit("Ann", wrong):
            pass


async def test_only_members_get_into_a_document(site: Site) -> None:
    async with site.visit("Dan") as dan, site.visit("Cat") as cat:
        assert await dan.ask("join", 7) == "FORBIDDEN"
        assert await dan.ask("say", 7, text="let me in") == "FORBIDDEN"
        assert await cat.ask("join", 7) == "ok"
        assert await cat.ask("join", 8) == "FORBIDDEN"
        assert await cat.ask("join", 9) == "FORBIDDEN"


async def test_what_is_said_reaches_the_document_and_nobody_else_and_viewers_only_read(site: Site) -> None:
    async with site.visit("Ann", document_id=7) as ann, site.visit("Cat", document_id=7) as cat:
        async with site.visit("Bob") as bob, site.visit("Ann", document_id=8) as other:
            assert await bob.ask("say", 7, text="not yet here") == "FORBIDDEN"
            assert await bob.ask("join", 7) == "ok"
            assert await bob.ask("say", 7, text="hello") == "ok"
            for visitor in (ann, bob, cat):
                assert await visitor.expect("said") == {"author": "Bob", "text": "hello"}
            assert await cat.ask("say", 7, text="may I?") == "FORBIDDEN"
            for text in ("", "x" * 501, 7):
                assert await ann.ask("say", 7, text=text) == "INVALID_DATA"
            assert await bob.ask("leave", 7) == "ok"
            assert await ann.ask("say", 7, text="bye") == "ok"
            assert await cat.expect("said") == {"author": "Ann", "text": "bye"}
            assert await site.ask("POST", "/users/1/bell", "Cat", text="ring") == 200
            await other.expect("bell")
            assert await bob.ask("say", 7, text="gone") == "FORBIDDEN"
            assert other.events == bob.events == []


async def test_who_types_is_told_to_the_others(site: Site) -> None:
    async with site.visit("Ann", document_id=7) as ann, site.visit("Cat", document_id=7) as cat:
        assert await cat.ask("typing", 7) == "ok"
        assert await ann.expect("typing") == {"name": "Cat"}
        assert await ann.ask("say", 7, text="go on") == "ok"
        await cat.expect("said")
        assert cat.events == []


async def test_who_is_here_is_known_by_name_and_tabs_are_counted(site: Site) -> None:
    async with site.visit("Ann", document_id=7) as ann:
        await ann.sees(Ann=1)
        async with site.visit("Bob", document_id=7) as bob:
            await ann.sees(Ann=1, Bob=1)
            async with site.visit("Bob", document_id=7) as again:
                for visitor in (ann, bob, again):
                    await visitor.sees(Ann=1, Bob=2)
                assert await bob.ask("join", 7) == "ok"  # once more changes nothing
                assert await again.ask("leave", 7) == "ok"
                await ann.sees(Ann=1, Bob=1)
        await ann.sees(Ann=1)


async def test_the_bell_rings_for_every_tab_of_a_user(site: Site) -> None:
    async with site.visit("Bob") as one, site.visit("Bob") as two, site.visit("Cat") as cat:
        assert await site.ask("POST", "/users/2/bell", "Ann", text="lunch") == 200
        for visitor in (one, two):
            assert await visitor.expect("bell") == {"text": "lunch", "from": "Ann"}
        assert await site.ask("POST", "/users/3/bell", "Ann", text="you too") == 200
        assert await cat.expect("bell") == {"text": "you too", "from": "Ann"}


async def test_who_is_removed_hears_nothing_more_and_the_others_see_it(site: Site) -> None:
    async with site.visit("Ann", document_id=7) as ann, site.visit("Bob", document_id=7) as one:
        async with site.visit("Bob", document_id=7) as two:
            await ann.sees(Ann=1, Bob=2)
            assert await site.ask("DELETE", "/documents/7/members/1", "Bob") == 403
            assert await site.ask("DELETE", "/documents/7/members/2", "Ann") == 204
            assert await ann.ask("say", 7, text="secret") == "ok"
            for bob in (one, two):
                assert (await bob.expect("left"))["reason"] == "FORBIDDEN"
                assert await bob.ask("say", 7, text="I am still here") == "FORBIDDEN"
                assert await bob.ask("join", 7) == "FORBIDDEN"
                assert bob.events == []
            await ann.sees(Ann=1)


async def test_a_login_ends(site: Site) -> None:
    async with site.visit("Ann", token_of("Ann", 2.5)) as ann:
        await ann.expect("session_expired")
        async with asyncio.timeout(DEADLINE):
            await ann.ws.wait_closed()


async def test_pages_of_other_sites_are_refused(site: Site) -> None:
    headers = {"Cookie": f"session={token_of('Ann')}", "Origin": "https://evil.example"}
    with pytest.raises(InvalidStatus):
        async with site.address.connect(site.visitor.path, additional_headers=headers):
            pass


# --- what is counted


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ('"""Docstring\nof two lines."""\n\n# a comment\nx = 1  # one\n', 1),
        ("def f(\n    a,\n    # why\n    b,\n):\n    '''Docstring.'''\n\n    return '''text\nof two lines'''\n", 6),
        ("class A:\n    x = 1\n\n    async def f(self): ...\n", 3),
    ],
)
def test_lines_of_code_are_those_with_code(source: str, lines: int) -> None:
    assert count.count(source) == lines


def test_the_page_says_what_each_takes() -> None:
    lines = count.figures()
    ours, theirs = lines["with_velocity_ws"], lines["with_socketio"]
    page = (ROOT / "docs/comparison.md").read_text()
    assert f"**{ours} lines** with velocity-ws, **{theirs} lines** with python-socketio" in page
    assert f"{ours / theirs:.0%}".replace("%", " %") in page
