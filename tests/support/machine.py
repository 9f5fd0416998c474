"""What the machine does to a process: what others took of it is not the fault of what is tested."""

from __future__ import annotations

from pathlib import Path

__all__ = ["waited_for_a_processor"]


def waited_for_a_processor(process: int | str = "self") -> float:
    """Seconds in all that the main thread of this or another process was ready to run and had no processor."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
