"""What those are answered who have no key to the streams over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.support import running, settings
from velocity_ws import Broker

KEY = "a-key-of-a-program"


@pytest.mark.parametrize(("keys", "status", "how"), [(KEY, 401, "Bearer"), ("", 403, None)])
async def test_who_writes_without_a_key_is_told_so_whether_there_are_streams_or_not(
    keys: str, status: int, how: str | None
) -> None:
    broker = Broker(settings(api_keys=keys))
    async with running(broker) as address, httpx.AsyncClient() as http:
        url = f"{address.http}/ws/streams/a"
        streams = broker.node.streams
        assert streams is not None
        for is_awake in (False, True):
            assert (streams.is_awake, streams.is_looking) == (is_awake, False)
            for method in ("PUT", "POST", "DELETE"):
                answer = await http.request(method, url, content=b"x", headers={"content-type": "text/plain"})
                assert (answer.status_code, answer.headers.get("www-authenticate")) == (status, how)
            assert (await http.get(url)).status_code == 404
            await streams.wake()
