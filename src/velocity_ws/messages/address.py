"""Address: to whom a message goes, as plain data that can travel to other processes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """To whom a message goes; plain data, so that it can travel to other processes.

    Attributes:
        kind: everyone, the members of rooms, all clients of users, or single clients.
        names: the rooms, the user ids or the client ids.
        excluded: ids of clients that do not get it.
    """

    kind: Literal["all", "rooms", "users", "clients"]
    names: Collection[str] = ()
    excluded: frozenset[str] = frozenset()
