"""What is measured, in order. To measure something else, write a function like those, and name it here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.connections.coming import ANNOTATIONS, CONTESTANTS, enter, models, storm
from benchmarks.connections.growth import HELD, connections, held, held_in, rooms
from benchmarks.connections.sizes import Sizes
from benchmarks.scenarios import Figures

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """Something that is measured.

    Attributes:
        key: for ``--scenario``.
        title: of its table; ``{…}`` are fields of `Sizes`.
        names: of its rows.
        measure: called with names; returns the figures of each.
        is_together: whether it is called with all of them, which take turns then, and not with each.
    """

    key: str
    title: str
    names: Callable[[Sizes], Sequence[str]]
    measure: Callable[[Sequence[str], Sizes], Awaitable[dict[str, Figures]]]
    is_together: bool = False


def _phases(sizes: Sizes) -> Sequence[str]:
    smallest, *_, largest = sizes.connections
    return [held_in(name, phase) for name in (smallest, largest) for phase in HELD]


SCENARIOS = (
    Scenario(
        "enter",
        "{visits:,} clients come, {at_once} at a time: origin, token, a room, a welcome; and go",
        lambda sizes: list(CONTESTANTS),
        enter,
    ),
    Scenario(
        "storm",
        "{storm:,} clients come within {seconds:g} s and stay, while {others} others talk",
        lambda sizes: list(CONTESTANTS),
        storm,
    ),
    Scenario(
        "models",
        "Echo of 64 bytes of JSON, {echo_clients} clients in closed loop, by annotation",
        lambda sizes: list(ANNOTATIONS),
        models,
        is_together=True,
    ),
    Scenario(
        "connections",
        "What grows with connections",
        lambda sizes: list(sizes.connections),
        connections,
        is_together=True,
    ),
    Scenario("rooms", "What grows with rooms", lambda sizes: list(sizes.rooms), rooms, is_together=True),
    Scenario("held", "How long the loop was held up", _phases, held, is_together=True),
)
"""All of them."""
