"""What hooks of several clients share: a task, where they do not wait, and so what is kept for each task.

With SQLAlchemy's sessions, as its documentation keys them, and as docs/serving.md does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import Peer, ServerKind, serve, settings
from velocity_ws import Broker, Client, Message, WebSocketMiddleware

SERVING = Path(__file__).parents[2] / "docs/serving.md"


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def no_application(*_: object) -> None: ...


@asynccontextmanager
async def two_clients(broker: Broker, kind: ServerKind = "ours") -> AsyncIterator[tuple[Peer, Peer]]:
    async with (
        serve(WebSocketMiddleware(no_application, broker), kind) as address,
        address.connect() as first,
        address.connect() as second,
    ):
        yield first, second


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


def keyed_by_task() -> tuple[Broker, asyncio.Event]:
    """A broker whose handlers add to a session kept for each task, and tell what is in it; one waits, and is let go."""
    broker, gate = Broker(settings()), asyncio.Event()
    session: async_scoped_session[AsyncSession] = async_scoped_session(async_sessionmaker(), asyncio.current_task)

    def add(text: str) -> list[str]:
        session.add(Order(text=text))
        return sorted(order.text for order in session.new)

    @broker.on("at once")
    async def at_once(data: str) -> list[str]:
        return add(data)

    @broker.on("later")
    async def later(client: Client, data: str) -> list[str]:
        await client.send("waiting")
        await gate.wait()
        return add(data)

    return broker, gate


async def test_of_two_handlers_that_do_not_wait_one_finds_what_the_other_has_left_in_its_task(kind: ServerKind) -> None:
    broker, _ = keyed_by_task()
    async with two_clients(broker, kind) as (first, second):
        assert (await first.request("at once", "of the first"))["data"] == ["of the first"]
        assert (await second.request("at once", "of the second"))["data"] == ["of the first", "of the second"]


async def test_a_handler_that_waits_has_its_task_to_itself_from_then_on() -> None:
    broker, gate = keyed_by_task()
    async with two_clients(broker) as (first, second):
        await first.send("later", "of the first", id=1)
        await first.expect("waiting")
        assert (await second.request("at once", "of the second"))["data"] == ["of the second"]
        gate.set()
        assert (await first.receive())["data"] == ["of the first"]
        assert (await first.request("at once", "again"))["data"] == ["again", "of the second"]


async def test_context_variables_are_one_clients_whether_its_hooks_wait_or_not(kind: ServerKind) -> None:
    broker, name = Broker(settings()), ContextVar("name", default="nobody's")

    @broker.on_connect
    async def greet(client: Client) -> None:
        name.set(client.id)

    @broker.on_message
    async def look(client: Client, message: Message) -> None:
        if message.event == "later":
            await asyncio.sleep(0)
        assert name.get() == client.id

    @broker.on("at once")
    @broker.on("later")
    async def say(client: Client) -> bool:
        return name.get() == client.id

    async with two_clients(broker, kind) as peers:
        for event in ("at once", "later", "at once"):
            for peer in peers:
                assert (await peer.request(event))["data"] is True
    assert broker.node.counters.errors == 0
    assert name.get() == "nobody's"


async def test_the_session_of_the_documentation_is_one_hooks_whether_it_waits_or_not(engine: AsyncEngine) -> None:
    broker = Broker(settings())
    (example,) = re.findall(r"^```python\n([^`]*?^scope:[^`]*?)^```$", SERVING.read_text(), re.MULTILINE)
    known: dict[str, Any] = {"broker": broker, "engine": engine, "Order": Order}
    exec(example, known)
    session, new_session = known["Session"], known["new_session"]

    @broker.on("at once")
    async def at_once(data: str) -> list[str]:
        async with new_session():
            session.add(Order(text=data))  # and nobody commits
            return [order.text for order in session.new]

    async with two_clients(broker) as peers:
        for text, peer in enumerate(peers):
            assert (await peer.request("at once", f"left {text}"))["data"] == [f"left {text}"]
        for text, peer in enumerate(peers):
            await peer.request("order", f"kept {text}")
        for text, peer in enumerate(peers):
            assert (await peer.request("at once", f"left {text}"))["data"] == [f"left {text}"]
    async with async_sessionmaker(engine)() as found:
        assert sorted(await found.scalars(select(Order.text))) == ["kept 0", "kept 1"]
    assert not session.registry.registry
