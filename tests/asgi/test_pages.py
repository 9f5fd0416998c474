"""What is served below an endpoint to browsers and proxies that keep it, and how a request's path is read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
from starlette.applications import Starlette

from tests.support import SERVER_KINDS, ServerKind, serve, settings
from velocity_ws import Broker, browser_client_path
from velocity_ws.asgi.browser_files import BROWSER_FILES
from velocity_ws.asgi.pages import route_path


@pytest.fixture(params=SERVER_KINDS)
async def http(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    kind: ServerKind = request.param
    app = Starlette()
    Broker(settings()).attach(app)
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        yield http


async def test_a_name_with_its_fingerprint_is_kept_and_every_other_is_asked_for_again(http: httpx.AsyncClient) -> None:
    plain = await http.get("/ws/velocity.js")
    final = await http.get(browser_client_path())
    old = await http.get("/ws/velocity.0123456789abcdef.js")  # of a page that another version has made
    assert plain.content == final.content == old.content
    control = [answer.headers["cache-control"] for answer in (plain, final, old)]
    assert control == ["no-cache", "public, max-age=31536000, immutable", "no-cache"]
    assert {answer.headers["content-type"] for answer in (plain, final, old)} == {"text/javascript; charset=utf-8"}
    assert {answer.headers["access-control-allow-origin"] for answer in (plain, final, old)} == {"*"}
    assert (await http.get("/ws/velocity.0123.js")).status_code == 404


async def test_what_a_browser_has_already_is_not_sent_again(http: httpx.AsyncClient) -> None:
    tags = {}
    for name in BROWSER_FILES:
        answer = await http.get(f"/ws/{name}")
        tags[name] = tag = answer.headers["etag"]
        assert tag.startswith('"')
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await http.get(f"/ws/{name}", headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), known
            assert again.headers["cache-control"] == "no-cache"
        other = await http.get(f"/ws/{name}", headers={"if-none-match": f'"other", {tag[:-2]}"'})
        assert (other.status_code, other.content) == (200, answer.content)
    assert len(set(tags.values())) == len(tags)


async def test_head_tells_what_get_would_without_sending_it(http: httpx.AsyncClient) -> None:
    told = ("etag", "cache-control", "content-type", "content-length", "access-control-allow-origin")
    for path in ("/ws/velocity.js", browser_client_path(), "/ws/velocity.d.ts"):
        got, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert [head.headers[name] for name in told] == [got.headers[name] for name in told]
        assert int(head.headers["content-length"]) == len(got.content)
        assert (await http.head(path, headers={"if-none-match": head.headers["etag"]})).status_code == 304
    assert (await http.get("/ws/velocity.js")).status_code == 200  # on the same connection, which nothing was left on


@pytest.mark.parametrize(
    ("path", "root", "route"),
    [
        ("/ws", "", "/ws"),
        ("/app/ws", "/app", "/ws"),
        ("/app", "/app", ""),
        ("/ws", "/app", "/ws"),
        ("/application/ws", "/app", "/application/ws"),
    ],
)
def test_a_root_is_taken_off_where_the_server_left_it(path: str, root: str, route: str) -> None:
    assert route_path({"path": path, "root_path": root}) == route
