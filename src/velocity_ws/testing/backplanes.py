"""BackplaneContract: what every backplane does, as tests. Knows no engine; a subclass says how a backplane is made.

pytest collects the subclass. Every test is a coroutine; pytest-asyncio in its auto mode runs them.
"""

from __future__ import annotations

from velocity_ws.testing.carrying import CarryingContract
from velocity_ws.testing.endings import EndingsContract

__all__ = ["BackplaneContract"]


class BackplaneContract(CarryingContract, EndingsContract):
    """The contract of `Backplane`, as tests that a subclass inherits::

        class TestPigeons(BackplaneContract):
            async def backplane(self):
                return PigeonBackplane("pigeon://loft")

    A subclass whose engine can be ended and stopped overrides ``kill``, ``freeze`` and ``thaw``; the tests that need
    them are skipped otherwise. An engine that one test has killed is gone for the next: start one for each test, in an
    autouse fixture.
    """
