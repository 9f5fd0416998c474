"""What the pages show, for applications to be written like it, does what they say of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI, Query
from fastapi.testclient import TestClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tests.support import DEADLINE, Address, eventually, running, serve, settings
from tests.support.pages import block_of, module_of, program_of, run
from velocity_ws import Accept, Broker, Client


class Base(DeclarativeBase):
    pass


class Membership(Base):
    __tablename__ = "memberships"

    chat_id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)


def test_who_is_removed_as_the_page_about_rooms_does_it_is_out(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    make_session = async_sessionmaker(engine)
    broker = Broker(settings())
    app = FastAPI()
    broker.attach(app)
    broker.authenticate(lambda request: "ann")
    chats = broker.rooms("chat:{chat_id}")

    @broker.on_connect
    async def enter(client: Client) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with make_session.begin() as db:
            db.add(Membership(chat_id=7, user_id=client.user_id))

    @chats.authorize
    async def may_enter(client: Client, chat_id: int) -> bool:
        async with make_session() as db:
            return await db.get(Membership, (chat_id, client.user_id)) is not None

    @broker.on_disconnect
    async def close() -> None:
        await engine.dispose()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with make_session() as db:
            yield db

    names = {"app": app, "broker": broker, "delete": delete, "Membership": Membership}
    run(block_of("rooms.md", "def remove_member"), {**names, "Session": Annotated[AsyncSession, Depends(get_db)]})
    with TestClient(app) as http, http.websocket_connect("/ws") as ws:
        ws.send_json({"event": "join", "id": 1, "data": {"room": "chat:7"}})
        assert ws.receive_json()["event"] == "reply"
        assert http.delete("/chats/7/members/ann").status_code == 204
        assert ws.receive_json() == {"event": "left", "data": {"room": "chat:7", "reason": "FORBIDDEN"}}
        assert broker.get_rooms() == []


async def test_only_members_get_into_the_first_room_of_the_page_about_rooms() -> None:
    with module_of(block_of("rooms.md", "def find_user")) as page:
        async with serve(page.app) as server, server.connect("/ws?user=ann") as ann:
            await ann.send("join", {"room": "chat:7"})
            await ann.send("message", {"text": "hello"}, room="chat:7")
            while (message := await ann.receive())["event"] in ("joined", "presence"):
                pass
            assert message == {"event": "message", "data": {"by": "ann", "text": "hello"}, "room": "chat:7"}
            for path, room in (("/ws?user=cy", "chat:7"), ("/ws", "chat:7"), ("/ws?user=ann", "chat:8")):
                async with server.connect(path) as stranger:
                    answer = await stranger.request("join", {"room": room})
                    assert answer["data"]["code"] == "FORBIDDEN"


class TestHandlersPages:
    """The blocks on the pages about handlers, what they depend on, and how to test both are one program."""

    SOURCE = "".join(program_of("handlers.md", "dependencies.md", "testing.md").rsplit("broker = Broker()", 1))

    @pytest.fixture
    def page(self) -> Iterator[Any]:
        with module_of(self.SOURCE) as module:
            yield module

    @pytest.fixture
    def http(self, page: Any) -> Iterator[TestClient]:
        engine = page.make_session.kw["bind"]
        broker: Broker = page.broker

        @broker.on_connect
        async def create() -> None:
            async with engine.begin() as connection:
                await connection.run_sync(page.Base.metadata.create_all)

        broker.on_disconnect(engine.dispose)
        with TestClient(page.app) as http:
            yield http

    def test_it_registers_what_it_shows(self, page: Any) -> None:
        hooks = page.broker.node.dispatcher._hooks
        events = ["ask", "comment", "comments.added", "cursor", "delete", "me", "rename", "stop", "whoami"]
        assert hooks.events() == events
        assert [len(hooks.of(kind)) for kind in ("authenticate", "connect")] == [1, 1]

    def test_its_test_passes(self, page: Any) -> None:
        page.test_who_i_am()

    async def test_its_tests_over_sockets_pass(self, page: Any) -> None:
        await page.test_over_a_real_socket()
        await page.test_what_one_node_says_reaches_the_clients_of_another()
        await page.make_session.kw["bind"].dispose()

    def test_who_has_no_cookie_gets_a_code_that_a_page_can_read(self, http: TestClient) -> None:
        with http.websocket_connect("/ws") as ws, pytest.raises(WebSocketDisconnect) as caught:
            ws.receive_json()
        assert (caught.value.code, caught.value.reason) == (4401, "log in")

    def test_a_page_of_another_site_is_refused(self, http: TestClient) -> None:
        with pytest.raises(WebSocketDenialResponse) as caught:
            http.websocket_connect("/ws", headers={"origin": "https://evil.example"}).__enter__()
        assert caught.value.status_code == 403

    def test_others_are_told_of_what_is_stored(self, page: Any, http: TestClient) -> None:
        async def join(client: Client) -> None:
            await page.broker.join_room(client.id, "comments")

        page.broker.on_connect(join)
        with http.websocket_connect("/ws", headers={"cookie": "token=ann"}) as ws:
            ws.send_json({"event": "comment", "id": 1, "data": "hello"})
            assert ws.receive_json() == {"event": "comment", "data": {"id": 1, "text": "hello"}}
            assert ws.receive_json() == {"event": "reply", "id": 1, "data": 1}


class TestUsersPage:
    """A login in a cookie, and what goes on from there."""

    SOURCE = "\n".join(block_of("users.md", word) for word in ("def set_cookie", "def log_out"))

    @pytest.fixture
    def page(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setenv("SECRET", "what only the servers of this application know")
        with module_of(self.SOURCE, is_password=lambda name, password: name == password) as module:
            yield module

    @pytest.fixture
    async def server(self, page: Any) -> AsyncIterator[Address]:
        async with serve(page.app) as address:
            yield address

    @pytest.fixture
    async def http(self, server: Address) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=server.http, timeout=DEADLINE) as http:
            yield http

    async def log_in(self, http: httpx.AsyncClient, name: str = "ann") -> dict[str, str]:
        """The header with the cookie, which goes out by itself over TLS alone."""
        answer = await http.post("/login", json={"name": name, "password": name})
        assert answer.status_code == 204
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "Secure", "SameSite=lax"} <= set(attributes)
        return {"cookie": cookie}

    async def test_who_logs_in_by_a_route_is_that_user_until_the_token_ends(
        self, server: Address, http: httpx.AsyncClient, page: Any
    ) -> None:
        assert (await http.post("/login", json={"name": "ann", "password": "x"})).status_code == 401
        async with server.connect(additional_headers=await self.log_in(http)) as peer:
            assert 890 < (await peer.expect("session"))["expires_in"] <= 900
            assert [client.user_id for client in page.broker.get_clients()] == ["ann"]

    async def test_a_ticket_of_its_own_user_renews_a_login_and_nothing_else_does(
        self, server: Address, http: httpx.AsyncClient, page: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        header = await self.log_in(http)
        async with server.connect(additional_headers=header) as peer:
            await peer.expect("session")
            monkeypatch.setattr(page, "LIFETIME", timedelta(hours=1))
            ticket = (await http.post("/token", headers=header)).json()
            await peer.send("refresh", ticket, id=1)
            assert 3500 < (await peer.expect("session"))["expires_in"] <= 3600
            await peer.expect("reply")
            of_bob = (await http.post("/token", headers=await self.log_in(http, "bob"))).json()
            of_routes = {"token": header["cookie"].partition("=")[2]}
            for wrong, code in ((of_bob, "FORBIDDEN"), (of_routes, "UNAUTHORIZED"), ({"token": ""}, "UNAUTHORIZED")):
                assert (await peer.request("refresh", wrong))["data"]["code"] == code
        for token in ("", "rubbish", ticket["token"]):
            async with server.connect(additional_headers={"cookie": f"token={token}"}) as peer:
                assert await peer.closed() == (4401, "log in")
            assert (await http.post("/token", headers={"cookie": f"token={token}"})).status_code == 401

    async def test_logging_out_ends_this_session_or_all(self, server: Address, http: httpx.AsyncClient) -> None:
        phone, laptop = await self.log_in(http), await self.log_in(http)
        async with (
            server.connect(additional_headers=phone) as one,
            server.connect(additional_headers=phone) as other_tab,
            server.connect(additional_headers=laptop) as two,
        ):
            await http.post("/logout", headers=phone)
            assert [await peer.closed() for peer in (one, other_tab)] == [(4401, "logged out")] * 2
            await two.expect("session")
            await two.send("$ping")
            assert await two.receive() == {"event": "$pong"}
            await http.post("/logout", params={"everywhere": True}, headers=laptop)
            assert await two.closed() == (4401, "logged out")

    async def test_a_new_name_reaches_all_connections_of_a_user_and_their_logins_end_when_they_did(self) -> None:
        @dataclass(frozen=True)
        class User:
            id: str
            name: str

        async def no_database() -> AsyncIterator[Any]:
            async def nothing(*_: object) -> None: ...

            yield SimpleNamespace(commit=nothing)

        async def store_name(*_: object) -> None: ...

        broker, app = Broker(settings()), FastAPI()
        broker.attach(app)
        broker.authenticate(lambda: Accept(User("ann", "Ann"), expires_at=time.time() + 60))
        names = {"app": app, "broker": broker, "store_name": store_name, "UserId": Annotated[str, Query()]}
        with module_of(block_of("users.md", "def renamed"), **names, Session=Annotated[Any, Depends(no_database)]):
            async with serve(app) as server, server.connect() as peer, server.connect() as tab:
                await peer.expect("session")
                await tab.expect("session")
                ends = {client.id: client.expires_at for client in broker.get_clients()}
                async with httpx.AsyncClient(base_url=server.http, timeout=DEADLINE) as http:
                    answer = await http.put("/me/name", params={"name": "Anna", "user_id": "ann"})
                    assert answer.status_code == 204
                await eventually(lambda: {client.user.name for client in broker.get_clients()} == {"Anna"})
                await eventually(lambda: {client.id: client.expires_at for client in broker.get_clients()} == ends)


async def test_who_types_is_told_to_the_others_until_it_ends_or_they_leave() -> None:
    broker = Broker(settings())
    broker.authenticate(lambda request: request.query_params["user"])
    chats = broker.rooms("chat:{chat_id}")
    chats.authorize(lambda client: True)
    with module_of(block_of("sending.md", "def stop_typing"), broker=broker, chats=chats, Client=Client):
        async with running(broker) as server, server.connect("/ws?user=ann") as ann:
            async with server.connect("/ws?user=bob") as bob:
                for peer in (ann, bob):
                    await peer.request("join", {"room": "chat:7"})
                for is_typing in (True, False, True):
                    await bob.send("typing", is_typing, room="chat:7")
                    assert await ann.expect("typing") == {"user": "bob", "typing": is_typing}
            assert await ann.expect("typing") == {"user": "bob", "typing": False}
