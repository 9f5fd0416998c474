"""Makes very many objects, and counts the full collections meanwhile; prints JSON.

A program, as a process has one collector. With ``own`` it has a threshold of its own.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter

from velocity_ws.process.garbage import FullCollections

MANY = 700_000
"""Objects that are half of those after which a full collection is due in any case."""

now = 0.0
seen = Counter[str]()


class Cycle:
    """Garbage that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        seen["freed"] += 1


def note(phase: str, info: dict[str, int]) -> None:
    """Count a full collection."""
    seen["full"] += phase == "start" and info["generation"] == 2


def grow(count: int) -> int:
    """How many full collections there are while that many objects come, which all stay for as long."""
    seen["full"] = 0
    kept = [[number] for number in range(count)]
    assert len(kept) == count
    return seen["full"]


if __name__ == "__main__":
    gc.callbacks.append(note)
    if "own" in sys.argv:
        gc.set_threshold(700, 10, 1000)
    found: dict[str, object] = {"by itself": grow(MANY)}
    collections = FullCollections(lambda: now)
    collections.keep_apart()
    collections.keep_apart()
    found["thresholds"] = gc.get_threshold()
    found["at once"] = grow(MANY)
    for _ in range(100_000):
        Cycle()
    found["freed"] = seen["freed"]
    now += 3600
    found["in time"] = grow(MANY)
    found["in any case"] = grow(4 * MANY)
    for _ in range(4 * MANY // 70):
        collections.count_in()
    found["of connections"] = grow(4 * MANY)
    for _ in range(4 * MANY // 70):
        collections.count_out()
    found["when they have gone"] = grow(8 * MANY)
    gc.set_threshold(700, 10, 1000)
    now += 3600
    grow(MANY)
    found["thresholds set later"] = gc.get_threshold()
    print(json.dumps({**found, "callbacks": len(gc.callbacks)}))
