"""StreamContract: what every store of streams does, as tests. Knows no engine; a subclass says how one is made.

pytest collects the subclass. Every test is a coroutine; pytest-asyncio in its auto mode runs them.
"""

from __future__ import annotations

from velocity_ws.testing.stream_deleting import StreamDeletingContract
from velocity_ws.testing.stream_ending import StreamEndingContract
from velocity_ws.testing.stream_losing import StreamLosingContract
from velocity_ws.testing.stream_racing import StreamRacingContract
from velocity_ws.testing.stream_reading import StreamReadingContract
from velocity_ws.testing.stream_writing import StreamWritingContract

__all__ = ["StreamContract"]


class StreamContract(
    StreamWritingContract,
    StreamEndingContract,
    StreamDeletingContract,
    StreamReadingContract,
    StreamLosingContract,
    StreamRacingContract,
):
    """The contract of a store of streams, as tests that a subclass inherits::

        class TestPigeons(StreamContract):
            async def store(self, prefix):
                return PigeonStreams("pigeon://loft", prefix=prefix)

            async def backplane(self):
                return PigeonBackplane("pigeon://loft")

    A subclass overrides what it can do to its engine: ``kill``, ``freeze`` and ``thaw``, ``fill``; the tests that need
    them are skipped otherwise. An engine that one test has killed is gone for the next: start one for each test, in an
    autouse fixture.
    """
