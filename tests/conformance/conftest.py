"""Servers whose streams need a key, for clients that are not ours."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.engines import ENGINES, started
from tests.support import running, settings
from tests.support.nodes import nodes
from velocity_ws import Broker

KEY = "a-key-of-a-program"


@pytest.fixture
def key() -> str:
    """The one of the server."""
    return KEY


@pytest_asyncio.fixture(params=ENGINES)
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a stream that is not there, of a server on each engine."""
    async with started(request.param) as engine:
        async with running(Broker(settings(api_keys=KEY, backplane_url=engine, backplane_timeout=5))) as address:
            yield f"{address.http}/ws/streams/{secrets.token_hex(8)}"


@pytest_asyncio.fixture(params=ENGINES)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str]]:
    """The addresses of one stream that is not there, by two nodes on each engine."""
    async with started(request.param) as engine, nodes(engine, api_keys=KEY, backplane_timeout=5) as found:
        here, there = [f"{node.address.http}/ws/streams/a" for node in found]
        yield here, there
