"""What a FastAPI route of the same application sends, a message carries, written as FastAPI writes it."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import json
import re
import types
import uuid
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import AnyUrl, BaseModel, ByteSize, Field, HttpUrl, PostgresDsn, RootModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from velocity_ws.errors import EncodeError
from velocity_ws.messages.outbound import encode


class FakeDatetime(dt.datetime):
    """As freezegun's, pendulum's and pandas' are: a subclass, that may write itself in another way."""

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return "mine"


class FakeDate(dt.date):
    pass


class FakeTime(dt.time):
    pass


class NoTime(FakeDatetime):
    """As pandas has it."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = FakeDatetime.__hash__


class Duration(dt.timedelta):
    pass


class AnotherUUID(uuid.UUID):
    pass


class Row(Mapping[str, Any]):
    """As a database's result is."""

    def __getitem__(self, key: str) -> Any:
        return {"id": 1, "at": Path("/tmp")}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["id", "at"])

    def __len__(self) -> int:
        return 2


class Record:
    """As asyncpg's is: no mapping, but it has keys."""

    def keys(self) -> list[str]:
        return ["id"]

    def __getitem__(self, key: str) -> int:
        return 7


class Entity:
    """As an object-relational mapper makes it."""

    def __init__(self) -> None:
        self._sa_instance_state = object()
        self.id = 7
        self.path = PurePosixPath("/a")


class Level(enum.Enum):
    PAIR = (1, 2)


class Account(BaseModel):
    user_name: str = Field(alias="userName")
    password: SecretStr
    home: HttpUrl


@dataclasses.dataclass
class Holder:
    value: Any


def generate() -> Iterator[int]:
    yield from (1, 2)


ACCOUNT = Account(userName="ann", password=SecretStr("tea"), home=HttpUrl("https://a.example/"))
KINDS: dict[str, Any] = {
    "deque": collections.deque([1, Path("/a")]),
    "path": Path("/tmp/a"),
    "windows path": PureWindowsPath("C:/a"),
    "IPv4": IPv4Address("192.0.2.1"),
    "interface": IPv4Interface("192.0.2.1/24"),
    "network": IPv6Network("2001:db8::/32"),
    "url": AnyUrl("https://a.example/x"),
    "secret": SecretStr("tea"),
    "pattern": re.compile("a+"),
    "proxy": types.MappingProxyType({"a": Path("/a")}),
    "user dict": collections.UserDict({"a": SecretStr("tea")}),
    "row": Row(),
    "record": Record(),
    "entity": Entity(),
    "uuid": AnotherUUID(int=5),
    "byte size": ByteSize(5),
    "enum of a tuple": Level.PAIR,
    "model": ACCOUNT,
    "root model": RootModel[list[Path]]([Path("/a")]),
    "date": FakeDate(2024, 2, 29),
    "counter": collections.Counter("aab"),
    "None as key": {None: 1},
    "bool as key": {True: 1, False: 2},
    "path as key": {Path("/a"): 1},
    "address as key": {IPv4Address("192.0.2.1"): 1},
    "secret as key": {SecretStr("tea"): 1},
    "uuid as key": {AnotherUUID(int=5): 1},
}


def written(data: Any) -> Any:
    return json.loads(encode("e", data).payload)["data"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_written_as_fastapi_writes_it(kind: str) -> None:
    value = KINDS[kind]
    for data in (value, [value], {"a": {"b": value}}, (1, [value])):
        assert written(data) == json.loads(json.dumps(jsonable_encoder(data)))
    assert written(Holder(value)) == {"value": written(value)}
    assert written({"a": Holder([value])}) == {"a": {"value": [written(value)]}}


@pytest.mark.parametrize("kind", ["path", "IPv4", "url", "secret", "pattern", "model", "uuid", "date"])
def test_in_a_model_it_is_as_pydantic_writes_it(kind: str) -> None:
    class Outer(BaseModel):
        inner_value: Any = Field(alias="innerValue")

    outer = Outer(innerValue=KINDS[kind])
    assert written([outer]) == to_jsonable_python([outer], by_alias=True)
    assert written([outer])[0]["innerValue"] == written(KINDS[kind])


@pytest.mark.parametrize("value", [PostgresDsn("postgres://u:p@h/d"), SecretBytes(b"tea")], ids=["dsn", "secret bytes"])
def test_what_pydantic_alone_knows_is_as_pydantic_writes_it(value: Any) -> None:
    assert written({"a": [value]}) == to_jsonable_python({"a": [value]})


def test_a_generator_is_a_list() -> None:
    assert written({"a": generate()}) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("subclass", "base", "arguments"),
    [
        (FakeDatetime, dt.datetime, (2024, 2, 29, 12, 30)),
        (FakeDatetime, dt.datetime, (2024, 2, 29, 12, 30, 1, 5, dt.UTC)),
        (FakeDatetime, dt.datetime, (2024, 7, 1, 12, 30, 1, 0, ZoneInfo("Europe/Berlin"))),
        (FakeDate, dt.date, (2024, 2, 29)),
        (FakeTime, dt.time, (12, 30, 1, 5)),
        (FakeTime, dt.time, (12, 30, 0, 0, dt.UTC)),
        (Duration, dt.timedelta, (3, 5, 7)),
        (Duration, dt.timedelta, (-1, 5)),
    ],
)
def test_times_of_other_libraries_are_written_as_those_of_python(subclass: Any, base: Any, arguments: Any) -> None:
    assert written(subclass(*arguments)) == written(base(*arguments))
    assert written({"a": [subclass(*arguments)]}) == written({"a": [base(*arguments)]})
    if base is not dt.timedelta:
        assert written({subclass(*arguments): 1}) == written({base(*arguments): 1})


def test_no_time_is_null() -> None:
    assert written([NoTime(1, 1, 1)]) == [None]


@pytest.mark.parametrize(
    "data",
    [object(), len, generate, Row, ValueError("x"), 1j, {(1, 2): 3}, {"a": {Record(): 1}}, Holder(object()), types],
    ids=lambda data: repr(data)[:20],
)
def test_what_has_no_form_is_still_an_error(data: Any) -> None:
    with pytest.raises(EncodeError):
        encode("e", data)
