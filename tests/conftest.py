"""What holds for every test."""

from __future__ import annotations

import gc

import hypothesis

from tests.support.say import say

__all__ = ["say"]

# A deadline for one example says more of what else the machine does than of the code; pytest has one for the test.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_collection_finish() -> None:
    """Let the collector pass over all that is there before the first test, as it does when an application has started.

    5,500 tests and what they import are 420,000 objects: 0.2 s for each full collection, and tests ask for many.
    """
    gc.collect()
    gc.freeze()
