"""The tests of several nodes run once for each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.nodes import KINDS, Node, engine_url, nodes


@pytest_asyncio.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """An engine."""
    async with engine_url(request.param) as found:
        yield found


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[list[Node]]:
    """Two nodes on it, which wait for it as long as a busy machine may need."""
    async with nodes(url, backplane_timeout=5) as found:
        yield found
