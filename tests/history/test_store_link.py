"""StoreLink: what it has begun is over when it has stopped."""

from __future__ import annotations

import asyncio

from tests.support import DEADLINE
from velocity_ws.backplane.base import Lost
from velocity_ws.history.calls import Calls
from velocity_ws.history.store_link import STOP_INTERVAL, StoreLink


class Slow:
    """A store whose connection takes a while to be given up, as one that waits for a server does."""

    max_payload = 1

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.has_ended = False

    async def connect(self, lost: Lost) -> None:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            until = asyncio.get_running_loop().time() + 3 * STOP_INTERVAL
            while (left := until - asyncio.get_running_loop().time()) > 0:
                try:
                    await asyncio.sleep(left)  # what it takes to end
                except asyncio.CancelledError:
                    continue
            self.has_ended = True

    async def close(self) -> None:
        """There is no connection."""

    def release(self) -> None:
        """There is nothing to give back."""


async def test_a_connection_that_is_given_up_slowly_is_over_when_the_link_has_stopped() -> None:
    store = Slow()
    link = StoreLink(store, Calls(DEADLINE), [], what="nothing")
    await link.start(0.0)
    await store.began.wait()
    await link.stop()
    assert store.has_ended
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("velocity-ws")] == []
