"""HistoryContract: what every store of room logs does, as tests. Knows no engine; a subclass says how one is made.

pytest collects the subclass. Every test is a coroutine; pytest-asyncio in its auto mode runs them.
"""

from __future__ import annotations

from velocity_ws.testing.appending import AppendingContract
from velocity_ws.testing.losing import LosingContract
from velocity_ws.testing.reading import ReadingContract

__all__ = ["HistoryContract"]


class HistoryContract(AppendingContract, ReadingContract, LosingContract):
    """The contract of a store of room logs, as tests that a subclass inherits::

        class TestPigeons(HistoryContract):
            async def store(self):
                return PigeonHistory("pigeon://loft")

            async def backplane(self):
                return PigeonBackplane("pigeon://loft")

    A subclass overrides what it can do to its engine: ``kill``, ``restart_empty``, ``freeze`` and ``thaw``, ``save``
    and ``rewind``, ``lose_meta``, ``lose_entries`` and ``lose_removals``, ``fill``; the tests that need them are
    skipped otherwise. ``pass_time`` waits, where it is not overridden. An engine that one test has killed is gone for
    the next: start one for each test, in an autouse fixture.
    """
