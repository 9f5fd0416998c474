"""Subprotocols: which one is selected, for refusals too, and that a token offered beside one stays where it is."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from tests.support import ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, Reject


async def test_the_first_subprotocol_that_a_client_offers_and_the_list_has_is_selected(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings(subprotocols="v2.chat, v1.chat, bearer"))

    @broker.authenticate
    def check(request: HTTPConnection) -> str | None:
        offered = request.scope["subprotocols"]
        if kind != "wsproto":  # whose request has no such header
            assert request.headers.get("sec-websocket-protocol", "") == ", ".join(offered)
        if offered[:1] != ["bearer"]:
            return None
        if offered[1] != "t0k.en":
            raise Reject("bad token", code=4401)
        return "ann"

    @broker.on_connect
    async def tell(client: Client) -> None:
        await client.send("you", [client.subprotocol, client.user_id])

    async with running(broker, kind) as address:
        for offered, selected, user in (
            (["v1.chat", "v2.chat"], "v1.chat", None),
            (["new", "v2.chat"], "v2.chat", None),
            (["bearer", "t0k.en"], "bearer", "ann"),
            (None, None, None),
        ):
            async with address.connect(subprotocols=offered) as peer:
                assert peer.ws.subprotocol == selected
                assert await peer.expect("you") == [selected, user]
        async with address.connect(subprotocols=["bearer", "wrong"]) as peer:
            assert peer.ws.subprotocol == "bearer"
            assert await peer.closed() == (4401, "bad token")
        assert caplog.messages == [message for message in caplog.messages if "WS_SUBPROTOCOLS" not in message]


async def test_what_is_not_listed_is_never_sent_back_and_the_log_says_so_once_without_it(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings())

    @broker.authenticate
    def check(request: HTTPConnection) -> None:
        if "s3cret" in request.scope["subprotocols"]:
            raise Reject("bad token", code=4401)

    async with running(broker, kind) as address:
        for _ in range(2):
            async with address.connect(subprotocols=["fine"]) as peer:
                assert peer.ws.subprotocol is None
            async with address.connect(subprotocols=["bearer", "s3cret"]) as peer:
                assert await peer.closed() == (4401, "bad token")
                assert peer.ws.response is not None
                assert "sec-websocket-protocol" not in peer.ws.response.headers
        await eventually(lambda: not broker.node.lifecycle.sessions)
    (warning,) = [message for message in caplog.messages if "WS_SUBPROTOCOLS" in message]
    assert "1006" in warning
    assert "s3cret" not in caplog.text
