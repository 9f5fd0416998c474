"""What is common to the engines that are servers, seen from outside."""

from __future__ import annotations

import asyncio

import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest

from tests.support.engines import engine
from velocity_ws.backplane import create_backplane
from velocity_ws.testing.listener import listening


def connections(port: int) -> int:
    """How many connections this process has to a port."""
    found = psutil.Process().net_connections("tcp4")
    return sum(1 for each in found if each.raddr and each.raddr.port == port and each.fd != -1)


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_what_was_not_written_does_not_come_later(kind: str) -> None:
    async with engine(kind) as server, listening(create_backplane(server.url), ["a"]) as one:
        assert connections(server.port) > 0
        server.freeze()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await one.backplane.publish([("a", b"x" * 1_000_000)] * 40)
            await one.backplane.close()
            await asyncio.sleep(0)  # the loop closes a socket in its next turn
            assert connections(server.port) == 0
        finally:
            server.thaw()
