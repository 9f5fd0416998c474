"""What the machine does to a process: what others took of it is not the fault of what is tested."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["beside_others", "waited_for_a_processor"]


def beside_others(seconds: float) -> float:
    """A bound for several processes that do something: three times as long where other tests run at the same time."""
    return seconds * (3 if "PYTEST_XDIST_WORKER" in os.environ else 1)


def waited_for_a_processor(process: int | str = "self") -> float:
    """Seconds in all that the main thread of this or another process was ready to run and had no processor."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
