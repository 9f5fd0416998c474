"""The file of results: parts that different runs write, each between marks of its own. Pure."""

from __future__ import annotations

__all__ = ["CLUSTER", "CONNECTIONS", "HISTORY", "HTTP_STREAMS", "PARTS", "STREAMS", "part_of", "with_part"]

CLUSTER = "cluster"
"""The part of `benchmarks.cluster`."""
CONNECTIONS = "connections"
"""The part of `benchmarks.connections`."""
HISTORY = "history"
"""The part of `benchmarks.history`."""
HTTP_STREAMS = "http-streams"
"""The part of `benchmarks.http_streams`."""
STREAMS = "streams"
"""The part of `benchmarks.streams`."""
PARTS = (CLUSTER, HISTORY, STREAMS, HTTP_STREAMS, CONNECTIONS)
"""All parts, in their order; what is before them is of `benchmarks`."""


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"


def part_of(text: str, name: str) -> str:
    """A part; empty where there is none."""
    begin, end = _marks(name)
    return text.partition(begin)[2].partition(end)[0]


def with_part(text: str, name: str, part: str) -> str:
    """The text with that part in place of the one that there was, or at the end; without it where it is empty."""
    begin, end = _marks(name)
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2] if found else ""
    if not part:
        return before + after
    if before and not before.endswith("\n\n"):
        before += "\n" if before.endswith("\n") else "\n\n"
    return f"{before}{begin}{part}{'' if part.endswith(chr(10)) else chr(10)}{end}{after}"
