"""Compact: mappings that mostly have one entry, which take a third of a dictionary then. Knows no hub and no client.

A dictionary of one entry takes 184 bytes. Most clients are in one room, most users have one client, and there may be
100,000 rooms of one client each.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Protocol, TypeVar

__all__ = ["AnyGroup", "Group", "GroupOfOne", "One", "with_entry"]

V = TypeVar("V")


class One(Mapping[str, V]):
    """A mapping of one entry, which stays as it is."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: V) -> None:
        self.key = key
        self.value = value

    def __getitem__(self, key: str) -> V:
        if key != self.key:
            raise KeyError(key)
        return self.value

    def __iter__(self) -> Iterator[str]:
        return iter((self.key,))

    def __len__(self) -> int:
        return 1

    # Those of `Mapping` are generators, which cost a message to one client 0.5 µs.

    def values(self) -> ValuesView[V]:
        return {self.key: self.value}.values()

    def items(self) -> ItemsView[str, V]:
        return {self.key: self.value}.items()


def with_entry(mapping: Mapping[str, V] | None, key: str, value: V) -> Mapping[str, V]:
    """A mapping, ``None`` for an empty one, with an entry more: the same object, if it is a dictionary."""
    if mapping is None:
        return One(key, value)
    entries = mapping if isinstance(mapping, dict) else dict(mapping)
    entries[key] = value
    return entries


class Named(Protocol):
    """What groups are of."""

    @property
    def id(self) -> str:
        """Unique among all that may be together."""


M = TypeVar("M", bound=Named)


class GroupOfOne(One[M]):
    """A room, or a user, with one member, by its id.

    Attributes:
        name: the room's, or the user's: one object, which all have that refer to it by this name.
    """

    __slots__ = ("name",)

    def __init__(self, name: str, member: M) -> None:
        super().__init__(member.id, member)
        self.name = name

    def with_member(self, member: M) -> Group[M]:
        """The group with one more."""
        return Group(self.name, self).with_member(member)

    def without(self, member_id: str) -> None:
        """Nothing is left without its member.

        Raises:
            KeyError: it is another.
        """
        if member_id != self.key:
            raise KeyError(member_id)


class Group(dict[str, M]):
    """The same with any number of members, in order of joining."""

    __slots__ = ("name",)

    def __init__(self, name: str, members: Mapping[str, M]) -> None:
        super().__init__(members)
        self.name = name

    def with_member(self, member: M) -> Group[M]:
        """The group with one more."""
        self[member.id] = member
        return self

    def without(self, member_id: str) -> Group[M] | None:
        """The group with one less; ``None`` where it was the last."""
        del self[member_id]
        return self or None


AnyGroup = GroupOfOne[M] | Group[M]
