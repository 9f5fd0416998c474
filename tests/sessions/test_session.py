"""Session: from its first hook to its last, and how much of a client's messages a close still lets it handle."""

from __future__ import annotations

import asyncio
import threading
from typing import get_args

import pytest

from tests.support import eventually, running, settings
from velocity_ws import Broker, Client
from velocity_ws.concurrency.portal import KERNEL_IS_ASKED
from velocity_ws.sessions.state import OPEN, Handle, SessionState

HANDLED: dict[Handle, list[int]] = {"nothing": [], "current": [1], "arrived": [1, 2], "all": [1, 2]}


def test_every_way_to_handle_is_tested() -> None:
    assert set(HANDLED) == set(get_args(Handle))


@pytest.mark.parametrize("handle", HANDLED)
async def test_a_close_says_how_much_is_still_handled(handle: Handle) -> None:
    broker = Broker(settings())
    began, release = asyncio.Event(), asyncio.Event()
    handled: list[int] = []

    @broker.on("wait")
    async def wait(data: int) -> None:
        began.set()
        await release.wait()
        handled.append(data)

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.send("wait", 1)
        await began.wait()
        await peer.send("wait", 2)
        await eventually(lambda: broker.get_stats().messages_received == 2)
        (session,) = broker.node.lifecycle.sessions
        session.close((4000, "enough"), handle=handle)
        release.set()
        assert await peer.closed() == (4000, "enough")
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert handled == HANDLED[handle]


@pytest.mark.parametrize("handle", ["arrived", "all"])
async def test_a_goodbye_is_said_when_the_patience_is_over(handle: Handle) -> None:
    broker = Broker(settings())
    began, release = asyncio.Event(), asyncio.Event()

    @broker.on("wait")
    async def wait() -> None:
        began.set()
        await release.wait()

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.send("wait")
        await began.wait()
        (session,) = broker.node.lifecycle.sessions
        session.close((4000, "enough"), handle=handle, patience=0.01)
        assert await peer.closed() == (4000, "enough")
        release.set()


RESTARTING = (1012, "restarting, retry_after=0.3")


@pytest.mark.parametrize("stops_first", [False, True])
async def test_a_goodbye_that_waits_keeps_its_words_and_what_has_arrived_when_the_broker_stops(
    stops_first: bool,
) -> None:
    broker, release, handled = Broker(settings(drain_timeout=8)), asyncio.Event(), list[int]()

    @broker.on("wait")
    async def wait(data: int) -> None:
        await release.wait()
        handled.append(data)

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.send("wait", 1)
        await peer.send("wait", 2)
        await eventually(lambda: broker.get_stats().messages_received == 2)
        (session,) = broker.node.lifecycle.sessions
        if not stops_first:
            session.close(RESTARTING, handle="all", patience=0.1)
        stopping = asyncio.create_task(broker.stop())
        await eventually(lambda: not session.inbox.is_taking)
        if stops_first:
            session.close(RESTARTING, handle="all", patience=0.1)
        assert await peer.closed() == RESTARTING
        assert not handled
        release.set()
        await stopping
    assert handled == [1, 2]


@pytest.mark.parametrize("handle", ["nothing", "current"])
async def test_a_second_close_makes_the_goodbye_sooner_and_lets_less_be_handled(handle: Handle) -> None:
    broker, release, handled = Broker(settings()), asyncio.Event(), list[int]()

    @broker.on("wait")
    async def wait(data: int) -> None:
        await release.wait()
        handled.append(data)

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.send("wait", 1)
        await peer.send("wait", 2)
        await eventually(lambda: broker.get_stats().messages_received == 2)
        (session,) = broker.node.lifecycle.sessions
        session.close(RESTARTING, handle="all", patience=60)
        session.close((4000, "enough"), handle=handle)
        session.close(RESTARTING, handle="all", patience=0)
        assert await peer.closed() == (4000, "enough")
        release.set()
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert handled == HANDLED[handle]


async def test_a_session_goes_through_its_states_in_order() -> None:
    broker = Broker(settings())
    states: list[SessionState] = []

    @broker.on_connect
    async def came(client: Client) -> None:
        states.extend(session.state for session in broker.node.lifecycle.sessions)

    @broker.on_disconnect
    async def went(client: Client) -> None:
        states.extend(session.state for session in broker.node.lifecycle.sessions)

    async with running(broker, "ours") as server:
        async with server.connect():
            await eventually(lambda: states)
            (session,) = broker.node.lifecycle.sessions
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert states == [OPEN, SessionState.CLOSING]
    assert session.state is SessionState.ENDED


@pytest.mark.skipif(not KERNEL_IS_ASKED, reason="the loop is asked for each time")
async def test_the_thread_of_the_loop_is_known_only_while_a_message_begins_to_be_handled() -> None:
    broker = Broker(settings())
    portal = broker.node.context.portal
    known: list[bool] = []

    @broker.on("look")
    async def look(client: Client, data: bool) -> None:
        known.append(portal.thread == threading.get_ident())
        await client.send("seen")
        if data:
            raise ValueError
        await asyncio.sleep(0)
        known.append(portal.thread is None)
        await client.send("seen")

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.send("look", False)
        await peer.receive()
        await peer.receive()
        await peer.send("look", True)
        await peer.receive()
        assert known == [True, True, True]
        assert portal.thread is None
