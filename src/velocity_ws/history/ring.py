"""Rings: the newest messages of rooms with history, ready to be sent, all rooms of a node within one bound. Pure."""

from __future__ import annotations

from collections import deque

from velocity_ws.messages.outbound import PlacedMessage

__all__ = ["Frame", "Ring", "Rings"]

OVERHEAD = 400
"""Bytes that a frame counts for beside its message."""


class Frame:
    """One message of a room's log, as clients get it.

    Attributes:
        stamp: the 40 bytes that the engine gave it; see `velocity_ws.history.entries`.
        offset: its number in the log.
        message: the message.
        excluded: the ids of clients that do not get it.
    """

    __slots__ = ("excluded", "message", "offset", "stamp")

    def __init__(self, stamp: bytes, offset: int, message: PlacedMessage, excluded: frozenset[str]) -> None:
        self.stamp = stamp
        self.offset = offset
        self.message = message
        self.excluded = excluded

    @property
    def time(self) -> int:
        """When the engine took it, in milliseconds by its clock."""
        return int.from_bytes(self.stamp[32:], "big")

    @property
    def mark(self) -> bytes:
        """The mark of the entry, which proves a position."""
        return self.stamp[16:24]

    @property
    def previous(self) -> bytes:
        """The mark of the entry before."""
        return self.stamp[24:32]

    @property
    def cost(self) -> int:
        """The bytes that it counts for."""
        return self.message.size + OVERHEAD


class Ring:
    """The newest frames of one room, contiguous, in order of offsets.

    Attributes:
        frames: they; only this module changes the deque.
        size: the bytes of their messages.
        is_whole: whether the engine had nothing older, when it was asked; false once frames were given up for others.
    """

    __slots__ = ("_rings", "frames", "is_whole", "size")

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self.frames: deque[Frame] = deque()
        self.size = 0
        self.is_whole = False

    def append(self, frame: Frame) -> None:
        """Take the frame that follows the last one."""
        self.frames.append(frame)
        self.size += frame.message.size
        self._rings.took(self, frame.cost)

    def prepend(self, frames: list[Frame]) -> None:
        """Take the frames that come before the first one, in order."""
        self.frames.extendleft(reversed(frames))
        self.size += sum(frame.message.size for frame in frames)
        self._rings.took(self, sum(frame.cost for frame in frames))

    def popleft(self) -> Frame:
        """Give up the oldest frame."""
        frame = self.frames.popleft()
        self.size -= frame.message.size
        self._rings.gave(frame.cost)
        return frame

    def clear(self) -> None:
        """Give up all of them."""
        self._rings.gave(sum(frame.cost for frame in self.frames))
        self.frames.clear()
        self.size = 0
        self.is_whole = False
        self._rings.forget(self)

    def at(self, offset: int) -> Frame | None:
        """The frame of an offset, where it is here."""
        frames = self.frames
        index = offset - frames[0].offset if frames else -1
        return frames[index] if 0 <= index < len(frames) else None

    def after(self, offset: int) -> list[Frame]:
        """The frames of larger offsets that are here, in order."""
        frames = self.frames
        if not frames:
            return []
        count = frames[-1].offset - offset
        if count * 4 < len(frames):  # which are at the end, as a deque is read from both
            tail = [frames[-index] for index in range(1, count + 1)]
            tail.reverse()
            return tail
        return [frames[index] for index in range(max(0, len(frames) - count), len(frames))]


class Rings:
    """What the rings of all rooms hold together. Those whose room was quiet for longest give first."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: bytes.
        """
        self.limit = limit
        self._size = 0
        self._used: dict[Ring, None] = {}  # the one that took something last is the last

    @property
    def size(self) -> int:
        """The bytes that all frames count for."""
        return self._size

    def took(self, ring: Ring, cost: int) -> None:
        """A ring has taken frames."""
        used = self._used
        used.pop(ring, None)
        used[ring] = None
        self._size += cost
        if self._size > self.limit:
            self._shrink()

    def gave(self, cost: int) -> None:
        """A ring has given up frames."""
        self._size -= cost

    def forget(self, ring: Ring) -> None:
        """A ring is empty, or over."""
        self._used.pop(ring, None)

    def _shrink(self) -> None:
        while self._size > self.limit and self._used:
            ring = next(iter(self._used))
            ring.is_whole = False
            while ring.frames and self._size > self.limit:
                ring.popleft()
            if not ring.frames:
                del self._used[ring]
