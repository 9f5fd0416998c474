"""Lives: the order in which the lives of a log came, each of which an engine begins that has lost the one before.

Nobody says it: an engine may begin one and lose it, and the next may be known before anybody hears of that one. It is
known of what shows it. What shows nothing has the order in which it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Lives"]


class Lives:
    """The lives of one log, by their epochs."""

    def __init__(self) -> None:
        self._before: dict[bytes, dict[bytes, None]] = {}  # of each, in the order in which they were seen
        self._order: dict[bytes, int] = {}

    def see(self, epoch: bytes) -> None:
        """Somebody knows of one."""
        if epoch not in self._before:
            self._before[epoch] = {}
            self._order.clear()

    def seen(self) -> list[bytes]:
        """All of which somebody knows."""
        return list(self._before)

    def follows(self, epoch: bytes, earlier: Iterable[bytes]) -> None:
        """One came after others, as something has shown."""
        self.see(epoch)
        for each in earlier:
            if each not in (epoch, *self._before[epoch]):
                self._before[epoch][each] = None
                self._order.clear()

    def is_after(self, epoch: bytes, earlier: bytes) -> bool:
        """Whether it was shown that one came after another."""
        known, found = [epoch], set[bytes]()
        while known:
            new = set(self._before[known.pop()]) - found
            found |= new
            known += new
        return earlier in found

    def index(self, epoch: bytes) -> int:
        """The place of one in the order."""
        self.see(epoch)
        if not self._order:
            for each in self._before:
                self._put(each, set())
        return self._order[epoch]

    def _put(self, epoch: bytes, on_the_way: set[bytes]) -> None:
        on_the_way.add(epoch)
        for each in self._before[epoch]:
            if each not in self._order and each not in on_the_way:
                self._put(each, on_the_way)
        self._order.setdefault(epoch, len(self._order))
