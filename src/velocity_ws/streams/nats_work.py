"""NatsWork: items for different streams on NATS that are done together, some of them again. Knows no kind of item.

What was refused since something has changed meanwhile is judged again, by what there is then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from velocity_ws.history.items import Refused
from velocity_ws.streams.nats_connection import Chain
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import Subjects

__all__ = ["NatsWork", "rounds"]


class OfStream(Protocol):
    """What is for one stream."""

    @property
    def id(self) -> str:
        """The id of that stream."""


Item = TypeVar("Item", bound=OfStream)
R = TypeVar("R")


class NatsWork(Generic[Item, R]):
    """Items of one call, no two of them for one stream, and what becomes of them. On one loop only.

    Attributes:
        engine: where.
        items: by the keys of their streams.
    """

    def __init__(self, engine: NatsEngine, items: Sequence[Item]) -> None:
        """
        Args:
            engine: where.
            items: what to do.
        """
        self.engine = engine
        self.items = {engine.names.key(item.id): item for item in items}
        self._results: dict[str, R | Refused] = {}

    @property
    def waiting(self) -> list[str]:
        """The keys of those that have no result."""
        return [key for key in self.items if key not in self._results]

    @property
    def results(self) -> list[R | Refused]:
        """Of all, in order."""
        return [self._results[key] for key in self.items]

    def settle(self, key: str, result: R | Refused) -> None:
        """This is what became of one."""
        self._results[key] = result

    async def store(self, chains: dict[str, Chain]) -> dict[str, int]:
        """Store what is to be stored for some; those that the engine refuses have their result.

        Returns:
            The sequences of those that are stored. What is in neither has changed meanwhile, or may be stored.

        Raises:
            ConnectionError: each may be stored, or not.
        """
        outcomes = await self.engine.stream.store_each(list(chains.values()))
        stored: dict[str, int] = {}
        for key, outcome in zip(chains, outcomes, strict=True):
            if isinstance(outcome, int):
                stored[key] = outcome
            elif isinstance(outcome, Refused):
                self.settle(key, outcome)
        return stored

    def subjects(self, key: str, topic: str) -> Subjects:
        """Where the messages of a stream are.

        One server judges one message after the other. Several of them let two in at once whose guards are not of the
        same subject, and so there all pieces have that of the ends of others.
        """
        names = self.engine.names
        pieces, all_ = names.pieces(key, topic), names.all_of(key)
        return Subjects(pieces, all_, pieces if self.engine.stream.replicas == 1 else all_)


def rounds(items: Iterable[OfStream]) -> list[list[int]]:
    """The places of items in lists, each of which has no stream twice; in order for each stream."""
    counts: dict[str, int] = {}
    found: list[list[int]] = []
    for index, item in enumerate(items):
        count = counts[item.id] = counts.get(item.id, -1) + 1
        if count == len(found):
            found.append([])
        found[count].append(index)
    return found
