"""What every backplane does, as tests: subclass the class, say how one is made, and let pytest collect it.

Every test is a coroutine; pytest-asyncio in its auto mode runs them.
"""

from __future__ import annotations

from velocity_ws.testing.carrying import CarryingContract
from velocity_ws.testing.endings import EndingsContract

__all__ = ["BackplaneContract"]


class BackplaneContract(CarryingContract, EndingsContract):
    """The contract of `Backplane`.

    ```python
    class TestPigeons(BackplaneContract):
        async def backplane(self):
            return PigeonBackplane("pigeon://loft")
    ```

    Where the engine can be ended and stopped, `kill` and `freeze` say how; tests that need it are skipped elsewhere. An
    engine that one test has killed is no longer there for the next: start one for each, in an autouse fixture.
    """
