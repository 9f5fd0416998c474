"""The behavioural suite runs once for each server, so that nothing depends on one of them."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import SERVER_KINDS, ServerKind
from tests.support.clocks import knows_no_delay


@pytest.fixture(params=SERVER_KINDS)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """The server a test runs on."""
    value: ServerKind = request.param
    return value


@pytest.fixture
async def unhurried() -> None:
    """No time passes on the loop of a test while its process is held up."""
    knows_no_delay(asyncio.get_running_loop())
