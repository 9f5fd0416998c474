"""Plain: the JSON form of what msgspec does not know by itself, as FastAPI writes it. Knows no message."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

__all__ = ["plain"]

# msgspec does not encode subclasses of these: a template library's safe string, a framework's own dict.
_BASES: tuple[Any, ...] = (str, int, float, dict, list, tuple)
_LISTED: tuple[Any, ...] = (set, frozenset, deque, Generator)


def plain(value: object) -> object:
    """Convert a value, or a key, that msgspec does not encode, one step nearer to JSON.

    Returns:
        A value that msgspec encodes, or a container whose items it may pass to this function in turn.

    Raises:
        TypeError: the value has no JSON form.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if value is None or isinstance(value, bool):  # msgspec encodes these as values, but not as keys
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, date | time | timedelta):
        return _plain_time(value)
    for base in _BASES:
        if isinstance(value, base):
            converted: object = base(value)
            return converted
    if isinstance(value, _LISTED):
        return list(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping) or hasattr(value, "keys"):
        return dict(value)  # type: ignore[call-overload]
    return _plain_object(value)


def _plain_time(value: date | time | timedelta) -> object:
    """Write a subclass (of pandas, pendulum, freezegun…) as msgspec writes its base class.

    Calls the methods of the base class, as those of the subclass may write something else.
    """
    if isinstance(value, timedelta):
        return timedelta(seconds=timedelta.total_seconds(value))
    if isinstance(value, datetime):
        # pandas' NaT, which stands for no time at all, is not equal to itself.
        return datetime.isoformat(value).replace("+00:00", "Z") if value == value else None
    return date.isoformat(value) if isinstance(value, date) else time.isoformat(value).replace("+00:00", "Z")


def _plain_object(value: object) -> object:
    if not isinstance(value, complex):  # pydantic writes one as text, which FastAPI does not send
        with contextlib.suppress(PydanticSerializationError):
            return to_jsonable_python(value, by_alias=True, inf_nan_mode="null")
    fields = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    public = {name: field for name, field in fields.items() if not name.startswith("_")}
    if public:  # a row of an object-relational mapper, say
        return public
    raise TypeError(f"a {type(value).__name__} has no JSON form")
