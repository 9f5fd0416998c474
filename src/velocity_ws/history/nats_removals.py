"""Removals: which users were removed from a log's room, as one record that is bounded. Knows no connection. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from velocity_ws.history.items import MAX_REMOVED

__all__ = ["Removals"]

USER_SIZE = 24
"""Bytes that a user takes in a record, with a share of all else."""


class Removals(msgspec.Struct, array_like=True):
    """Who was removed, and at which revision.

    Attributes:
        epoch: that of the log.
        revision: the last removal's.
        floor: everybody counts as removed at this revision.
        users: by the hash of a user's id, in order.
    """

    epoch: bytes
    revision: int
    floor: int
    users: dict[bytes, int]

    @classmethod
    def parse(cls, data: bytes, epoch: bytes, revision: int) -> Removals | None:
        """Read a record; ``None`` where it is no longer that of the log.

        Args:
            data: what was stored.
            epoch: the log's.
            revision: that of its last removal.
        """
        try:
            found = msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError:
            return None
        return found if found.epoch == epoch and found.revision >= revision else None

    @property
    def data(self) -> bytes:
        """The record as bytes."""
        return msgspec.msgpack.encode(self)

    def removed(self, user: str) -> int:
        """When a user was last removed; 0 for never."""
        return max(self.floor, self.users.get(_hash(user), 0))

    def add(self, user: str, revision: int, most: int) -> Removals:
        """The record after one more removal, in a message of at most ``most`` bytes."""
        users = self.users.copy()
        users.pop(_hash(user), None)
        users[_hash(user)] = revision
        floor = self.floor
        while len(users) > min(MAX_REMOVED, most // USER_SIZE):
            floor = users.pop(next(iter(users)))
        return Removals(self.epoch, revision, floor, users)


def _hash(user: str) -> bytes:
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).digest()[:12]
