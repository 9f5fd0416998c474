"""What the pages show, for applications to be written like it, does what they say of it."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tests.support import settings
from velocity_ws import Broker, Client

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    """The blocks of Python on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(page: str, word: str) -> str:
    """The one of them that has a word in it."""
    (found,) = [each for each in blocks(page) if word in each]
    return found


def run(source: str, names: dict[str, Any]) -> None:
    """Run it as a part of a module in which these names are there."""
    exec(compile(source, "a page", "exec", dont_inherit=True), names)


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
    run(block("rooms.md", "def remove_member"), {**names, "Session": Annotated[AsyncSession, Depends(get_db)]})
    with TestClient(app) as http, http.websocket_connect("/ws") as ws:
        ws.send_json({"event": "join", "id": 1, "data": {"room": "chat:7"}})
        assert ws.receive_json()["event"] == "reply"
        assert http.delete("/chats/7/members/ann").status_code == 204
        assert ws.receive_json() == {"event": "left", "data": {"room": "chat:7", "reason": "FORBIDDEN"}}
        assert broker.get_rooms() == []


class TestHandlersPage:
    """The blocks on the page about handlers are one program."""

    SOURCE = "\n".join(blocks("handlers.md"))

    @pytest.fixture
    def page(self) -> Iterator[Any]:
        module = types.ModuleType("handlers_page")
        sys.modules[module.__name__] = module  # where annotations are looked for
        try:
            run(self.SOURCE, vars(module))
            yield module
        finally:
            del sys.modules[module.__name__]

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

    async def test_a_type_checker_takes_all_of_it_but_what_it_shows_to_be_filtered(self, tmp_path: Path) -> None:
        model = "async def complete(data: str) -> typing.AsyncIterator[str]:\n    yield data\n"
        file = tmp_path / "page.py"
        file.write_text(f"import typing\n{model}{self.SOURCE}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mypy", "--no-error-summary", str(file), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output = (await process.communicate())[0].decode()
        lines = file.read_text().splitlines()
        wrong = [lines[int(number) - 1] for number in re.findall(r"page\.py:(\d+): error", output)]
        assert wrong == [line for line in lines if "the password stays here" in line], output
