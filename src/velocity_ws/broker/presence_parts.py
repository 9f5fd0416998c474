"""ComingParts: states of rooms that come in parts, until they are whole. Pure."""

from __future__ import annotations

from velocity_ws.broker.presence_wire import Change, Counts, Infos

__all__ = ["ComingParts", "Whole", "version_of_whole"]


class Whole:
    """What one node has of a room, as far as it has come.

    Attributes:
        version: of which moment it is.
        part: the number of the last part.
        users: the number of its clients by user.
        infos: what it says of them.
    """

    __slots__ = ("infos", "part", "users", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.part = 0
        self.users: Counts = {}
        self.infos: Infos = {}


class ComingParts:
    """The parts that have come, by room and node."""

    def __init__(self) -> None:
        self._coming: dict[str, dict[str, Whole]] = {}

    def take(self, origin: str, change: Change) -> Whole | bool:
        """Take a part.

        Returns:
            The whole, with the last part; else whether those before it have come. If not, they are forgotten.
        """
        coming = self._coming.setdefault(change.room, {})
        version = version_of_whole(change)
        whole = Whole(version) if change.part == 1 else coming.get(origin)
        if whole is None or whole.version != version or whole.part + 1 != change.part:
            coming.pop(origin, None)
            return False
        whole.part = change.part
        whole.users.update(change.users)
        whole.infos.update(change.infos)
        if change.part >= change.parts:
            coming.pop(origin, None)
            return whole
        coming[origin] = whole
        return True

    def forget(self, room: str, origin: str | None = None) -> None:
        """Forget the parts of a room: those of one node, or all."""
        if origin is None:
            self._coming.pop(room, None)
        elif room in self._coming:
            self._coming[room].pop(origin, None)

    def clear(self) -> None:
        """Forget all parts that have come."""
        self._coming.clear()


def version_of_whole(change: Change) -> int:
    """The version of the state that a part is of: parts are numbered up to it."""
    return change.version + max(change.parts - change.part, 0)
