"""Answers: what a handler's return annotation makes of what it returns."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import running, settings
from tests.support.hooks import THREADS
from velocity_ws import Broker, Client
from velocity_ws.hooks.answers import InvalidAnswerError
from velocity_ws.hooks.hook import Hook
from velocity_ws.messages.outbound import encode


class User(BaseModel):
    id: int
    name: str = Field(serialization_alias="userName")


class Stored(User):
    password: str


class Box(BaseModel):
    users: list[User]
    anything: Any = None


@dataclass
class Point:
    x: int


@dataclass
class Named(Point):
    secret: str = "s"


class Move(TypedDict):
    to: list[int]


class Struct(msgspec.Struct):
    n: int


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    password: Mapped[str]


STORED = Stored(id=1, name="ann", password="secret")
ANN = {"id": 1, "userName": "ann"}


async def answer(annotation: Any, result: Any, *, plain: bool = False) -> Any:
    """What a client gets."""

    async def handler() -> Any:
        return result

    def in_thread() -> Any:
        return result

    function: Callable[[], Any] = in_thread if plain else handler
    function.__annotations__["return"] = annotation
    return json.loads(encode("reply", await Hook("event", function)(THREADS, {})).payload)["data"]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("annotation", "result", "expected"),
    [
        (User, STORED, ANN),
        (User, {"id": "1", "name": "ann", "password": "secret"}, ANN),
        (User, Row(id=1, name="ann", password="secret"), ANN),
        (list[User], [STORED, Row(id=1, name="ann", password="secret")], [ANN, ANN]),
        (User | None, None, None),
        (User | None, STORED, ANN),
        (dict[str, User], {"a": STORED}, {"a": ANN}),
        (Box, {"users": [STORED], "anything": [1]}, {"users": [ANN], "anything": [1]}),
        (Point, Named(1), {"x": 1}),
        (Move, {"to": ["1"], "more": 2}, {"to": [1]}),
        (dt.datetime, "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        (UUID, UUID(int=5), str(UUID(int=5))),
        (int, "5", 5),
        (list[int], (1, "2"), [1, 2]),
        (bytes, b"\xff", "/w=="),
        (None, None, None),
        (Any, STORED, {**ANN, "password": "secret"}),
        (dict, {"a": Struct(1)}, {"a": {"n": 1}}),
        (dict[str, Any], {"a": SecretStr("s")}, {"a": "**********"}),
        (list[object], [Struct(1)], [{"n": 1}]),
        (Struct, Struct(1), {"n": 1}),
    ],
)
async def test_what_is_annotated_is_what_goes_out(annotation: Any, result: Any, expected: Any, plain: bool) -> None:
    assert await answer(annotation, result, plain=plain) == expected


@pytest.mark.parametrize(
    ("annotation", "result", "problem"),
    [
        (User, {"id": "secret"}, "id: .*valid integer.*; name: Field required"),
        (User, None, "it: Input should be a valid dictionary or object"),
        (int, "secret", "it: .*valid integer"),
        (list[int], [1, "secret"], "1: .*valid integer"),
    ],
)
async def test_what_does_not_fit_is_named_without_its_values(annotation: Any, result: Any, problem: str) -> None:
    with pytest.raises(InvalidAnswerError, match=f"handler returned what its return annotation.*{problem}") as caught:
        await answer(annotation, result)
    assert "secret" not in str(caught.value)


async def test_a_plain_function_may_return_something_to_wait_for() -> None:
    async def later() -> Stored:
        return STORED

    def handler() -> Awaitable[User]:
        return later()

    def typed() -> User:
        return asyncio.ensure_future(later(), loop=loop)  # type: ignore[return-value]

    loop = asyncio.get_running_loop()
    assert await Hook("event", handler)(THREADS, {}) is STORED
    assert json.loads(bytes(await Hook("event", typed)(THREADS, {}))) == ANN


async def test_what_says_nothing_costs_nothing() -> None:
    async def silent(data): ...  # type: ignore[no-untyped-def]
    async def nothing() -> None: ...
    async def anything() -> dict[str, Any]:
        return {}

    async def on_join() -> User:
        return STORED

    for function in (silent, nothing, anything):
        assert Hook("event", function)._function is function
    assert Hook("join", on_join)._function is on_join


def test_an_annotation_that_cannot_be_resolved_is_said_to_filter_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def handler() -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    with caplog.at_level(logging.WARNING, "velocity_ws.hooks"):
        assert Hook("event", handler)._function is handler
    assert "return annotation of" in caplog.text
    assert "Missing" in caplog.text


async def test_a_client_that_asked_gets_it_and_of_a_failure_only_that_there_was_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker(settings())

    @broker.on("user")
    async def user(client: Client, data: dict[str, Any]) -> User:
        return data  # type: ignore[return-value]

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("user", {"id": 1, "name": "ann", "password": "secret"}))["data"] == ANN
        failed = await peer.request("user", {"id": "secret"})
    assert (failed["event"], failed["data"]["code"]) == ("error", "INTERNAL_ERROR")
    assert "does not allow: id: Input should be a valid integer" in caplog.text
    assert "secret" not in caplog.text
    assert broker.get_stats().errors == 1
