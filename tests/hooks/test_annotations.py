"""Data is validated as the JSON it was: strict models take what JSON has no form of its own for, and nothing else."""

from __future__ import annotations

import datetime as dt
import enum
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
import pydantic.dataclasses
import pytest
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, SecretStr, Strict, TypeAdapter, with_config
from pydantic_core import core_schema

from velocity_ws.hooks.annotations import validator
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.validation import InvalidDataError

STRICT = ConfigDict(strict=True)
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Everything(BaseModel):
    model_config = STRICT
    at: dt.datetime
    day: dt.date
    time: dt.time
    took: dt.timedelta
    id: UUID
    colour: Colour
    price: Decimal
    pair: tuple[int, str]
    tags: set[str]
    frozen: frozenset[int]
    raw: bytes
    path: Path
    ip: IPv4Address
    secret: SecretStr
    number: int
    ratio: float


DATA: dict[str, Any] = {
    "at": "2024-02-29T12:30:00Z", "day": "2024-02-29", "time": "12:30:00", "took": "PT5S",
    "id": "00000000-0000-0000-0000-000000000005", "colour": "red", "price": "1.10", "pair": [1, "a"], "tags": ["a"],
    "frozen": [1], "raw": "abc", "path": "/tmp", "ip": "192.0.2.1", "secret": "s", "number": 2**70, "ratio": 0.1,
}  # fmt: skip


class Box(BaseModel, Generic[T]):
    model_config = STRICT
    item: T


class Holder(BaseModel):
    inner: list[Everything]


@pydantic.dataclasses.dataclass(config=STRICT)
class Meeting:
    at: dt.datetime


@with_config(STRICT)
@dataclass
class Plain:
    at: dt.datetime


@with_config(STRICT)
class Typed(typing_extensions.TypedDict):
    at: dt.datetime


class FieldAlone(BaseModel):
    at: dt.datetime = Field(strict=True)
    n: int


class Encoded(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")
    raw: bytes


class Celsius:
    """A type that comes from a number in JSON, and is only itself in Python."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        from_json = core_schema.no_info_plain_validator_function(lambda value: cls())
        return core_schema.json_or_python_schema(from_json, core_schema.is_instance_schema(cls))


AT = {"at": DATA["at"]}


def validated(annotation: Any, value: Any) -> Any:
    async def hook(data: Any) -> None: ...

    hook.__annotations__["data"] = annotation
    found = validator(hook, "data", "hook")
    assert found is not None
    return found[0](value)


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (Everything, DATA),
        (Everything | None, DATA),
        (list[Everything], [DATA]),
        (Holder, {"inner": [DATA]}),
        (Box[dt.datetime], {"item": DATA["at"]}),
        (Box[UUID] | Box[int], {"item": DATA["id"]}),
        (Meeting, AT),
        (Plain, AT),
        (Typed, AT),
        (FieldAlone, {**AT, "n": "7"}),
        (Annotated[dt.datetime, Strict()], DATA["at"]),
        (Annotated[Decimal, Field(strict=True)] | None, "1.10"),
        (Encoded, {"raw": "AAE="}),
        (Celsius, 20.5),
    ],
    ids=str,
)  # fmt: skip
def test_what_pydantic_takes_as_json_is_taken(annotation: Any, data: Any) -> None:
    expected = TypeAdapter(annotation).validate_json(json.dumps(data))
    result = validated(annotation, msgspec.json.decode(json.dumps(data)))
    assert type(result) is type(expected)
    assert isinstance(result, Celsius) or result == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("number", "1"), ("number", 1.0), ("at", 1), ("colour", "blue"), ("pair", "ab"), ("tags", {}), ("ratio", "0.1")],
)
async def test_strict_is_still_strict(field: str, value: Any) -> None:
    async def hook(client: Any, data: Everything) -> None: ...

    with ThreadPoolExecutor() as threads, pytest.raises(InvalidDataError) as caught:
        await Hook("event", hook)(threads, {"client": None, "data": {**DATA, field: value}})
    assert [detail["loc"][0] for detail in caught.value.details] == [field]


@pytest.mark.parametrize("annotation", [int, list[dt.datetime], dict[str, Colour]])
def test_what_is_not_strict_is_validated_as_it_is(annotation: Any) -> None:
    async def hook(data: Any) -> None: ...

    hook.__annotations__["data"] = annotation
    found = validator(hook, "data", "hook")
    assert found is not None
    assert getattr(found[0], "__name__", "") == "validate_python"
