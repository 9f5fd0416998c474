"""Directory: the way of a join from the application to the hub, and clients that no node has."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from tests.support import running, settings
from velocity_ws import Broker, Client, ClientNotFound
from velocity_ws.broker.directory import Directory
from velocity_ws.sessions.hub import Hub

MAX_CALLS = 6
"""Of our functions on the way to `Hub.join`: checks of both names, the portal, and the directory, which finds it."""


async def test_a_join_reaches_the_hub_in_six_calls_at_most() -> None:
    broker = Broker(settings())
    called: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("velocity_ws."):
            called.append(frame.f_code.co_qualname)

    @broker.on("join")
    async def join(client: Client, data: str) -> None:
        sys.setprofile(note)
        try:
            await broker.join_room(client.id, data)
        finally:
            sys.setprofile(None)

    async with running(broker, "ours") as server, server.connect() as peer:
        await peer.request("join", "x")
    before = called[: called.index("Groups.join")]
    assert before[0] == "ServerAPI.join_room"
    assert len(before) <= MAX_CALLS, before


@pytest.mark.parametrize("client_id", ["nobody", "", "a.b.c"])
async def test_leaving_is_harmless_for_an_id_that_names_no_node_where_no_client_is(client_id: str) -> None:
    directory = Directory("an emitter", Hub(), None, lambda _: None)
    await directory.leave(client_id, "tea")
    with pytest.raises(ClientNotFound):
        await directory.join(client_id, "tea")
