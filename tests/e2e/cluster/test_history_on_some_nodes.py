"""A deploy that gives rooms a history: nodes with and without it side by side, as docs/scaling.md says of them."""

from __future__ import annotations

from typing import Any

from tests.support import Peer
from tests.support.nodes import engine_url, nodes
from velocity_ws import Broker, Client, History

ROOM = "chat:7"


async def test_what_nodes_without_a_history_send_arrives_and_is_not_kept() -> None:
    histories = iter([None, History()])

    def prepare(broker: Broker) -> None:
        kind = broker.rooms("chat:{chat_id}", history=next(histories))

        @kind.authorize
        async def anybody(client: Client) -> bool:
            return True

    async with engine_url("memory") as url, nodes(url, prepare=prepare) as (old, new):
        async with old.address.connect() as there, new.address.connect() as here:
            assert await joined(there) == {"room": ROOM}
            at = (await joined(here))["at"]
            sent = await new.broker.to_room(ROOM).send("said", "kept")
            assert await there.receive() == {"event": "said", "data": "kept", "room": ROOM}
            assert await here.receive() == {"event": "said", "data": "kept", "room": ROOM, "at": sent.at}
            assert (await old.broker.to_room(ROOM).send("said", "live")).at is None
            for peer in (there, here):
                assert await peer.receive() == {"event": "said", "data": "live", "room": ROOM}
        async with old.address.connect() as there, new.address.connect() as here:
            assert await joined(there, since=at) == {"room": ROOM}
            assert (await joined(here, since=at))["missed"] == 1
            assert await here.expect("said") == "kept"
        assert new.broker.get_stats().backplane_gaps == old.broker.get_stats().backplane_gaps == 0


async def joined(peer: Peer, **data: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await peer.request("join", {"room": ROOM, **data}))["data"]
    return answer
