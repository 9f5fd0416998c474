"""The behavioural suite runs once for each server, so that nothing depends on one of them."""

from __future__ import annotations

import pytest

from tests.support import SERVER_KINDS, ServerKind


@pytest.fixture(params=SERVER_KINDS)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """The server a test runs on."""
    value: ServerKind = request.param
    return value
