"""The browser of these tests: one for each worker of pytest, as its start is what costs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.tabs import Chromium, chromium


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    """A Chromium in which nothing is switched off."""
    async with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found
