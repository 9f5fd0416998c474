"""What the pages show, for applications to be written like it, does what they say of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import settings
from velocity_ws import Broker, Client

ROOT = Path(__file__).parents[1]


def block(page: str, word: str) -> str:
    """The one block of Python on a page that has a word in it."""
    blocks: list[str] = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL
    )
    (found,) = [each for each in blocks if word in each]
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
