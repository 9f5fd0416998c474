"""Retention: how much a room of a kind remembers, as an application says it and as a log has it. Pure; knows no log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from velocity_ws.quantities import parse_duration, parse_size

__all__ = ["MAX_SIZE", "History", "Limits"]

MAX_SIZE = 1_000_000
"""Entries; a log is a cache, and what needs more of them is a database."""
MAX_TTL = 365 * 86400.0
"""Seconds."""
MAX_BYTES = 2**40
LEAST_META_TTL = 3600_000
"""Milliseconds for which a top is kept at least; more than those of an idempotency key."""
_Mode = Literal["all", "latest"]


class Limits(NamedTuple):
    """How much of a log is kept. Those of the newest append are in force, for entries that were there before as well.

    Attributes:
        size: entries, at least 1.
        ttl: milliseconds, at least 1. An entry is gone when it is that old.
        max_bytes: bytes of all envelopes, without stamps, at least 1. An envelope that has more is published, and gone.
    """

    size: int
    ttl: int
    max_bytes: int

    @property
    def meta_ttl(self) -> int:
        """Milliseconds for which the top is known after the last call for the log."""
        return max(10 * self.ttl, LEAST_META_TTL)


@dataclass(frozen=True, slots=True)
class History:
    """What rooms of a kind remember. What is older, or more, is gone; a smaller bound applies from the next message on.

    Attributes:
        size: messages that are kept, at most; 1 to 1,000,000.
        ttl: for how long, as ``"10m"``, ``"1h30m"`` or a number of seconds; above 0, at most a year.
        max_bytes: bytes of them at most, as ``"1MiB"``, ``"64KiB"`` or a number of bytes; above 0.
        mode: ``"all"``, or ``"latest"`` where the newest message stands for all before it: it alone is kept.

    Raises:
        ValueError: one of them is none of these.
    """

    size: int = 100
    ttl: str | float = "10m"
    max_bytes: str | int = "1MiB"
    mode: _Mode = "all"
    limits: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or not 0 < self.size <= MAX_SIZE:
            raise ValueError(f"the size of a history is a number of messages, 1 to {MAX_SIZE}, not {self.size!r:.80}")
        if self.mode not in ("all", "latest"):
            raise ValueError(f'the mode of a history is "all" or "latest", not {self.mode!r:.80}')
        size = 1 if self.mode == "latest" else self.size
        object.__setattr__(self, "limits", Limits(size, self._milliseconds(), self._bytes()))

    def _milliseconds(self) -> int:
        seconds = _parsed(parse_duration, self.ttl)
        if not isinstance(seconds, int | float) or not 0.001 <= seconds <= MAX_TTL:
            raise ValueError(
                f'the ttl of a history is "10m", "1h30m" or a number of seconds, above 0 and at most a year, '
                f"not {self.ttl!r:.80}"
            )
        return round(seconds * 1000)

    def _bytes(self) -> int:
        size = _parsed(parse_size, self.max_bytes)
        if not isinstance(size, int) or not 0 < size <= MAX_BYTES:
            raise ValueError(
                f'max_bytes of a history is "1MiB", "64KiB" or a number of bytes, above 0, not {self.max_bytes!r:.80}'
            )
        return size


def _parsed(parse: Callable[[object], object], value: object) -> object:
    """What a text or a number means; ``None`` where it means nothing."""
    if isinstance(value, bool):
        return None
    try:
        return parse(value)
    except ValueError:
        return None
