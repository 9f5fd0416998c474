"""What a HEAD says of a stream over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.support import SERVER_KINDS, ServerKind, running, settings
from velocity_ws import Broker

KEY = "a-key-of-a-program"


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_it_says_how_the_stream_is_and_not_that_a_get_would_have_nothing(kind: ServerKind) -> None:
    async with (
        running(Broker(settings(api_keys=KEY)), kind) as address,
        httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        url, plain = f"{address.http}/ws/streams/a", {"content-type": "text/plain"}
        created = await http.put(url, content=b"something", headers=plain)
        found = await http.head(url)
        assert found.status_code == 200
        assert found.headers["content-type"] == "text/plain"
        assert found.headers["stream-next-offset"] == created.headers["stream-next-offset"]
        assert "content-length" not in found.headers
        assert (await http.get(url)).text == "something"  # by the same connection
