"""What holds for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
import pytest_asyncio

from tests.support.say import say

if TYPE_CHECKING:
    from playwright.async_api import Browser

__all__ = ["say"]

# The contracts are in the package, and are to say what they compared as tests do.
pytest.register_assert_rewrite("velocity_ws.testing")
# Pydantic looks for plugins in all that is installed, which is a tenth of the start of each process that tests start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# A deadline for one example says more of what else the machine does than of the code; pytest has one for the test.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def started_browser() -> AsyncIterator[Browser]:
    """A Chromium for all tests of a worker of pytest, as its start is what costs."""
    from tests.support.site import launch  # Playwright is not there where `make compat` runs tests

    async with launch() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def browser(started_browser: Browser) -> AsyncIterator[Browser]:
    """A Chromium in which there is nothing of other tests, not even of those that failed."""
    yield started_browser
    for context in started_browser.contexts:
        await context.close()


def pytest_collection_finish() -> None:
    """Let the collector pass over all that is there before the first test, as it does when an application has started.

    5,500 tests and what they import are 420,000 objects: 0.2 s for each full collection, and tests ask for many.
    """
    gc.collect()
    gc.freeze()
