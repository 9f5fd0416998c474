"""Pattern: which names of rooms a text with ``{parameters}`` means, and what these stand for. Knows no room, no hook.

``{name}`` stands for one or more characters, none of them ``:`` or ``/``; ``{name:path}`` for one or more of any kind.
Where a name fits in several ways, a parameter takes as much as it can, the first one first, as in Starlette's paths.
"""

from __future__ import annotations

import keyword
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from velocity_ws.errors import HookError
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = ["Pattern"]

TAKEN = frozenset({"broker", "client", "data", "message", "room"})
"""What hooks of rooms get under these names is something else."""

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_SEPARATOR = re.compile("[:/]")


class _Parameter(NamedTuple):
    name: str
    is_path: bool


class Pattern:
    """A text with parameters, such as ``chat:{chat_id}``.

    Names come from strangers, so that nothing in one is tried twice: where a parameter may end so that all behind it
    fits is found first, from the last parameter to the first.

    Attributes:
        text: as it was written.
        parameters: the names of its parameters, in order.
        shape: the same for all patterns that mean the same rooms under other names of parameters.
    """

    __slots__ = ("_between", "_parameters", "_prefix", "_suffix", "parameters", "shape", "text")

    def __init__(self, text: str) -> None:
        """
        Raises:
            HookError: it is no pattern; the message says what to write.
        """
        if not isinstance(text, str) or not text:
            raise HookError(f"rooms() takes a pattern, a text such as 'chat:{{chat_id}}', and not {text!r:.80}")
        pieces = _PARAMETER.split(text)
        self.text = text
        self._parameters = [_parse(written, text) for written in pieces[1::2]]
        self.parameters = tuple([parameter.name for parameter in self._parameters])
        texts = pieces[::2]
        self._prefix, *self._between, self._suffix = [texts[0], *texts[1:]] if self.parameters else [texts[0], ""]
        self.shape = (tuple(texts), tuple([parameter.is_path for parameter in self._parameters]))
        self._check(texts)

    def _check(self, texts: list[str]) -> None:
        if any("{" in each or "}" in each for each in texts):
            raise HookError(f"the pattern {self.text!r:.80} has a brace without its other half; write {{name}}")
        if len(set(self.parameters)) < len(self.parameters):
            raise HookError(f"the pattern {self.text!r:.80} has two parameters of one name; give each its own")
        if not all(self._between):
            raise HookError(
                f"in the pattern {self.text!r:.80} nothing parts two parameters, so that nobody can tell where the "
                "first one ends; put a text between them, as in {a}:{b}"
            )
        if len("".join(texts)) + len(self.parameters) > MAX_NAME_LENGTH:
            raise HookError(f"the pattern {self.text!r:.80} fits no room: names end at {MAX_NAME_LENGTH} characters")

    def match(self, room: str) -> dict[str, str] | None:
        """What the parameters stand for in the name of a room; ``None`` where the pattern does not mean that room."""
        if not self._parameters:
            return {} if room == self.text else None
        start, end = len(self._prefix), len(room) - len(self._suffix)
        if start >= end or not room.startswith(self._prefix) or not room.endswith(self._suffix):
            return None
        if not self._between:  # by far the most common, at a quarter of the cost of what follows
            ((name, is_path),) = self._parameters
            value = room[start:end]
            return {name: value} if is_path or (":" not in value and "/" not in value) else None
        separators = [found.start() for found in _SEPARATOR.finditer(room)]
        found: dict[str, str] = {}
        for (name, is_path), between, ends in zip(
            self._parameters, [*self._between, ""], self._ends(room, end, separators), strict=True
        ):
            last = _last_end(start, ends, [] if is_path else separators)
            if last is None:
                return None
            found[name] = room[start:last]
            start = last + len(between)
        return found

    def _ends(self, room: str, end: int, separators: list[int]) -> list[list[int]]:
        """Where each parameter may end, in ascending order, so that all behind it fits."""
        ends = [[end]]
        for between, (_, is_path) in zip(reversed(self._between), reversed(self._parameters), strict=False):
            behind, stops = ends[-1], [] if is_path else separators
            places = _places(room, between, end)
            ends.append([at for at in places if _last_end(at + len(between), behind, stops) is not None])
        return ends[::-1]


def _last_end(start: int, ends: list[int], separators: list[int]) -> int | None:
    """The last of some places where a parameter may end that begins at ``start`` and has none of the separators."""
    index = bisect_left(separators, start)
    count = bisect_right(ends, separators[index]) if index < len(separators) else len(ends)
    return ends[count - 1] if count and ends[count - 1] > start else None


def _places(room: str, text: str, end: int) -> Iterator[int]:
    """Where a text stands in a name before ``end``, also where it overlaps itself."""
    at = room.find(text, 0, end)
    while at >= 0:
        yield at
        at = room.find(text, at + 1, end)


def _parse(written: str, pattern: str) -> _Parameter:
    name, colon, converter = written.partition(":")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise HookError(
            f"{{{written}}} in the pattern {pattern!r:.80} is no parameter; its name is that of a hook's parameter, as "
            "in {chat_id}"
        )
    if colon and converter != "path":
        raise HookError(
            f"{{{written}}} in the pattern {pattern!r:.80} has a converter that is not there: {{{name}:path}} takes : "
            f"and / too, and its type is said in the hook, as in {name}: int"
        )
    if name in TAKEN:
        raise HookError(f"{{{name}}} in the pattern {pattern!r:.80} is what every hook gets; give it another name")
    return _Parameter(name, bool(colon))
