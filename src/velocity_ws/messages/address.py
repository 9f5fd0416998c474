"""Address: the receivers of a message, as plain data that can travel to other processes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """The receivers of one message.

    Attributes:
        kind: everyone, the members of rooms, all clients of users, or single clients.
        names: the rooms, the user ids or the client ids; empty for ``all``.
        excluded: the ids of clients that do not receive it.
    """

    kind: Literal["all", "rooms", "users", "clients"]
    names: Collection[str] = ()
    excluded: frozenset[str] = frozenset()
