"""A loop that is held up by something else than the engine: late is not lost."""

from __future__ import annotations

import asyncio
import time

from tests.support.nodes import nodes, person

TIMEOUT = 1.2
"""WS_BACKPLANE_TIMEOUT, in seconds."""
LONGER = 2.5
"""Seconds; a batch has two timeouts, and a proof that the node hears 1.5 s, until a connection is given up."""


async def test_a_loop_that_is_blocked_while_a_message_is_on_its_way_does_not_cost_the_connection(
    url: str,
) -> None:
    async with nodes(url, backplane_timeout=TIMEOUT) as (a, b), person(b, room="x") as (peer, _):
        await a.broker.to_room("x").send("n", 0)
        sending = asyncio.create_task(a.broker.to_room("x").send("n", 1))
        for _ in range(3):  # until the engine has it, and no longer
            await asyncio.sleep(0)
        time.sleep(LONGER)  # noqa: ASYNC251 - as somebody's hook does
        await asyncio.gather(sending, return_exceptions=True)  # its time was over before anybody could look
        await a.broker.to_room("x").send("n", 2)
        assert [await peer.expect("n") for _ in range(3)] == [0, 1, 2]
        for node in (a, b):
            assert node.broker.healthy
            assert node.broker.get_stats().backplane_gaps == 0
