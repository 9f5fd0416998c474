"""Scan: reads a JSON text without building it: how deep it nests, and its ``id`` even if the text is malformed.

Pure, and quick for the longest text: a stranger chooses it.
"""

from __future__ import annotations

import itertools
import re
from array import array
from typing import Any

import msgspec

__all__ = ["MAX_DEPTH", "MIN_DEEP", "find_id", "is_too_deep"]

MAX_DEPTH = 500
"""Arrays and objects that may be open at once in a message, its own included. How deep the decoder goes depends on the
version of Python, and all nodes have to agree on what is ``INVALID_JSON``."""
MIN_DEEP = 2 * MAX_DEPTH
"""Characters of a text up to which no JSON can nest deeper than `MAX_DEPTH`."""
PIECE = 128
"""Brackets that are counted together."""
TOKENS = 20_000
"""Strings and brackets that are read behind the place where a text stops being JSON."""

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")
_HALF = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""Half a surrogate pair, as JavaScript writes half an emoji."""
_TOKEN = re.compile(rb'[^"\[\]{}]*+("[^"]*"|[\[{]+|[\]}]+|")')
_VALUE = re.compile(rb'\s*:\s*(-?[0-9]+|"[^"]*")\s*[,}]')
_PLACE = re.compile(r"\(byte ([0-9]+)\)")


class _Value:
    """A value that the decoder passes to a hook."""


class _Shown(msgspec.Struct):
    id: _Value | None = None


class _OnlyId(msgspec.Struct):
    id: int | str | None = None


_decode_id = msgspec.json.Decoder(_OnlyId).decode
_decode_any = msgspec.json.Decoder().decode


def is_too_deep(text: str) -> bool:
    """Whether more than `MAX_DEPTH` arrays and objects are open at once; a guess if the text is not JSON."""
    if len(text) <= MIN_DEEP:
        return False
    arrays = text.count("[") if "[" in text else 0  # to look for one takes a tenth of the time of counting
    if arrays + text.count("{") <= MAX_DEPTH:
        return False
    brackets = _brackets(_plain_quotes(text.encode(errors="replace")))
    depth = 0
    for at in range(0, len(brackets), PIECE):
        piece = brackets[at : at + PIECE]
        opened = piece.count(b"[")
        if depth + opened > MAX_DEPTH:
            steps = array("b", piece.translate(_STEPS))
            if max(itertools.accumulate(steps, initial=depth)) > MAX_DEPTH:
                return True
        depth += 2 * opened - len(piece)
    return False


def find_id(text: str) -> int | str | None:
    """Find the ``id`` of an inbound message, at a fraction of the cost of decoding it.

    In a text that is not JSON, the id is the last value of a key ``id`` at the top level of the first object. Behind
    the place where the text stops being JSON, `TOKENS` strings and brackets are read.

    Returns:
        The id; ``None`` if the message has none, or none that could be answered.
    """
    try:
        return _decode_id(text).id
    except msgspec.ValidationError:  # no object, or no id that could be answered
        return None
    except (msgspec.DecodeError, RecursionError, ValueError):
        return _find_in_malformed(text)


def _find_in_malformed(text: str) -> int | str | None:
    if not text.lstrip().startswith("{"):
        return None
    data = _HALF.sub(rb"\\ufffd", _plain_quotes(text.encode(errors="replace")))
    found: list[Any] = []
    place = _show(data, found)
    if place is not None:
        found += _ids_behind(data, place)
    value = found[-1] if found else None
    if type(value) is int:
        # The last number of a text that was cut off may have been longer.
        return None if data.endswith(str(value).encode()) else value
    # An id with half a character has been altered: its sender would not recognize the answer.
    return value if type(value) is str and "\ufffd" not in value else None


def _show(data: bytes, found: list[Any]) -> int | None:
    """Collect the ids up to where the text stops being JSON; return that place, or ``None`` to look no further."""

    def show(_: type, value: Any) -> _Value:
        found.append(value)
        return _Value()

    try:
        msgspec.json.Decoder(_Shown, dec_hook=show, float_hook=float).decode(data)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        place = _PLACE.search(str(error))
        return None if place is None else int(place[1])
    except RecursionError:
        return 0
    return None


def _ids_behind(data: bytes, place: int) -> list[Any]:
    """Collect the ids behind a place; before it are whole tokens, and perhaps the beginning of one more."""
    before = data[:place]
    if before.count(b'"') % 2:
        before = before[: before.rindex(b'"')]  # it is within a string, which is read from its beginning
    depth = _depth(before)
    if before.strip() and not (depth and _depth(before[:-1])):
        return []  # behind the message, or one character further
    found: list[Any] = []
    for token in itertools.islice(_TOKEN.finditer(data, len(before)), TOKENS):
        text = token[1]
        if text[0] in b"[{":
            depth += len(text)
        elif text[0] in b"]}":
            depth -= len(text)
            if depth <= 0:
                break
        elif len(text) == 1:
            break  # a string without an end
        elif depth == 1 and (value := _VALUE.match(data, token.end())) and _decoded(text) == "id":
            found.append(_decoded(value[1]))
    return found


def _depth(data: bytes) -> int:
    brackets = _brackets(data)
    return 2 * brackets.count(b"[") - len(brackets)


def _decoded(token: bytes) -> Any:
    try:
        return _decode_any(token)
    except (msgspec.DecodeError, ValueError):
        return None


def _plain_quotes(data: bytes) -> bytes:
    """Rewrite escaped quotes and backslashes, so that each quote left begins or ends a string, and each backslash
    begins an escape."""
    return data.replace(b"\\\\", b"\\u005c").replace(b'\\"', b"\\u0022")


def _brackets(data: bytes) -> bytes:
    """Keep the brackets outside of strings, all written as square ones."""
    brackets = data.translate(_BRACKETS, _OTHERS).replace(b'""', b"")
    return b"".join(brackets.split(b'"')[::2])
