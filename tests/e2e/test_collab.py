"""The example with a database, logins, rooms of a kind and presence: two workers of it, by sockets and in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Address, Peer
from tests.support.command import kept_port
from tests.support.engines import free_port
from tests.support.proxies import STRIPPING, documented, named_blocks, run_proxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
START = 60.0
"""Seconds that two workers and their engine may take to start, on a machine that does other things."""
IDS = {"ann": 1, "bob": 2, "cat": 3}

expect.set_options(timeout=DEADLINE * 1000)


@asynccontextmanager
async def serving(directory: Path, workers: int = 1, *options: str, **environment: str) -> AsyncIterator[Address]:
    """The example, in processes of its own, with a new database."""
    address = Address(kept_port())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    with (directory / "collab.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "velocity_ws", "run", "examples.collab.app:app"),
            *options,
            *("--port", str(address.port), "--workers", str(workers), "--log-level", "warning"),
            cwd=ROOT,
            env={
                **inherited,
                "COLLAB_DATABASE": f"sqlite+aiosqlite:///{directory / 'collab.db'}",
                "COLLAB_SECRET": secrets.token_hex(),
                "XDG_RUNTIME_DIR": str(directory),
                **environment,
            },
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=address.http) as http, asyncio.timeout(START):
            while not await is_ready(http):
                assert process.returncode is None, (directory / "collab.log").read_text()
                await asyncio.sleep(0.05)  # nobody listens yet
        yield address
    finally:
        process.terminate()
        async with asyncio.timeout(START):
            await process.wait()
    log_text = (directory / "collab.log").read_text()
    assert process.returncode == 0, log_text
    assert "Traceback" not in log_text, log_text


async def is_ready(http: httpx.AsyncClient) -> bool:
    try:
        login = await http.post("/api/login", json={"name": "ann", "password": "ann"})
        return login.status_code == 200 and (await http.get("/ws/health")).status_code == 200
    except httpx.TransportError:
        return False


class Person:
    """Somebody who is logged in.

    Attributes:
        http: has the cookie.
    """

    def __init__(self, address: Address, http: httpx.AsyncClient) -> None:
        self.address = address
        self.http = http

    async def ask(self, method: str, path: str, data: Any = None, status: int = 200) -> Any:
        """What a route answers."""
        answer = await self.http.request(method, f"/api/{path}", json=data)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    @asynccontextmanager
    async def connected(self, room: str | None = None) -> AsyncIterator[Peer]:
        """A WebSocket of theirs, in a room where one is given."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        headers = {"Cookie": cookie, "Origin": self.address.http}
        async with self.address.connect(additional_headers=headers) as peer:
            assert 0 < (await peer.expect("session"))["expires_in"] <= 3600
            if room is not None:
                assert (await request(peer, "join", {"room": room}))["event"] == "reply"
            yield peer


async def request(peer: Peer, event: str, data: Any = None, room: str | None = None) -> Any:
    """What answers a request; what comes before is forgotten."""
    number = secrets.randbelow(2**31)
    await peer.send(event, data, id=number, **({} if room is None else {"room": room}))
    while (message := await peer.receive()).get("id") != number:
        pass
    return message


async def hears(peer: Peer, event: str) -> Any:
    """The next message of an event."""
    while (message := await peer.receive())["event"] != event:
        pass
    return message


async def hears_nothing_of(peer: Peer, event: str, before: str) -> None:
    """Whether something comes without something else before it."""
    while (message := await peer.receive())["event"] != before:
        assert message["event"] != event, message


@asynccontextmanager
async def person(address: Address, name: str) -> AsyncIterator[Person]:
    """Somebody who logs in; passwords are names."""
    async with httpx.AsyncClient(base_url=address.http) as http:
        found = Person(address, http)
        assert (await found.ask("POST", "login", {"name": name, "password": name}))["id"] == IDS[name]
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Address]:
    async with serving(tmp_path_factory.mktemp("collab"), 2) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def brief(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Address]:
    """One where a login ends after nine seconds, and its connections soon after."""
    directory = tmp_path_factory.mktemp("brief")
    async with serving(directory, COLLAB_SESSION_MINUTES="0.15", WS_EXPIRY_GRACE="0.2") as address:
        yield address


async def new_document(owner: Person, **members: str) -> str:
    """A document of somebody's, with members in roles; its room."""
    document = await owner.ask("POST", "documents", {"title": "A new one"}, 201)
    for name, role in members.items():
        await owner.ask("PUT", f"documents/{document['id']}/members", {"name": name, "role": role})
    return f"document:{document['id']}"


async def test_a_login_is_a_cookie_that_no_script_reads_and_no_other_site_sends(site: Address) -> None:
    async with httpx.AsyncClient(base_url=site.http) as http:
        for wrong in ({"name": "ann", "password": "bob"}, {"name": "eve", "password": "eve"}):
            assert (await http.post("/api/login", json=wrong)).status_code == 401
        assert (await http.get("/api/documents")).status_code == 401
        answer = await http.post("/api/login", json={"name": "ann", "password": "ann"})
        assert re.search(r"; HttpOnly; Max-Age=3600; Path=/; SameSite=strict$", answer.headers["set-cookie"])
        assert (await http.get("/api/me")).json() == {"id": 1, "name": "ann", "color": "#c2410c"}
        token = next(iter(http.cookies.values()))
        assert (await http.post("/api/logout")).status_code == 204
        assert (await http.get("/api/me")).status_code == 401
        assert (await http.get("/api/me", headers={"Cookie": f"collab_session={token[:-2]}"})).status_code == 401


async def test_who_is_not_logged_in_is_told_and_another_site_is_refused(site: Address) -> None:
    async with site.connect() as peer:
        assert await peer.closed() == (4401, "log in first")
    async with person(site, "ann") as ann:
        ticket = (await ann.ask("POST", "login/renew"))["token"]
        async with site.connect(additional_headers={"Cookie": f"collab_session={ticket}"}) as peer:
            assert await peer.closed() == (4401, "log in first")  # a ticket is no session
        cookie = f"collab_session={ann.http.cookies['collab_session']}"
        headers = {"Cookie": cookie, "Origin": "https://evil.example"}
        with pytest.raises(InvalidStatus):
            async with site.connect(additional_headers=headers):
                pass


async def test_a_comment_is_stored_told_and_rings_bells_and_viewers_only_read(site: Address) -> None:
    async with person(site, "ann") as ann, person(site, "bob") as bob, person(site, "cat") as cat:
        room = await new_document(ann, bob="editor", cat="viewer")
        document = f"documents/{room.partition(':')[2]}"
        for each in (bob, cat):
            await each.ask("DELETE", "notices", status=204)
        async with ann.connected(room) as at_ann, bob.connected(room) as at_bob, cat.connected() as at_cat:
            answer = (await request(at_bob, "comment", {"text": " hello "}, room))["data"]
            assert (answer["author"]["name"], answer["text"]) == ("bob", "hello")
            told = await hears(at_ann, "comment")
            assert (told["room"], told["data"]) == (room, answer)
            assert (await ann.ask("GET", document))["comments"] == [answer]
            while (await hears(at_cat, "bell"))["data"]["text"] != "bob wrote in A new one":
                pass  # that she is a viewer was told before she came, and may be slow on its way to her worker
            assert [notice["text"] for notice in await cat.ask("GET", "notices")] == ["bob wrote in A new one"]
            assert await bob.ask("GET", "notices") == []
            refused = await request(at_cat, "comment", {"text": "not in it"}, room)
            assert refused["data"]["code"] == "FORBIDDEN"
            assert (await request(at_cat, "join", {"room": room}))["event"] == "reply"
            refused = await request(at_cat, "comment", {"text": "may I?"}, room)
            assert (refused["data"]["code"], refused["data"]["message"]) == ("FORBIDDEN", "viewers do not comment")
            refused = await request(at_bob, "comment", {"text": "  "}, room)
            assert refused["data"]["code"] == "INVALID_DATA"
            await at_cat.send("typing", None, room=room)
            assert (await hears(at_ann, "typing"))["data"] == {"name": "cat"}
            assert len((await ann.ask("GET", document))["comments"]) == 1


async def test_only_members_get_into_a_document_and_only_owners_name_them(site: Address) -> None:
    async with person(site, "ann") as ann, person(site, "bob") as bob:
        room = await new_document(ann)
        document = f"documents/{room.partition(':')[2]}"
        await bob.ask("GET", document, status=404)
        await bob.ask("PUT", f"{document}/members", {"name": "bob", "role": "owner"}, 403)
        async with bob.connected() as peer:
            for wrong in (room, "document:x", "document:999", "elsewhere"):
                assert (await request(peer, "join", {"room": wrong}))["data"]["code"] == "FORBIDDEN"
            await ann.ask("PUT", f"{document}/members", {"name": "bob", "role": "editor"})
            assert (await hears(peer, "bell"))["data"]["text"] == "You are editor of A new one"
            assert (await request(peer, "join", {"room": room}))["event"] == "reply"
        assert {member["user"]["name"] for member in (await bob.ask("GET", document))["members"]} == {"ann", "bob"}


async def test_who_is_here_has_names_and_colors_on_both_workers(site: Address) -> None:
    async with person(site, "ann") as ann, person(site, "bob") as bob:
        room = await new_document(ann, bob="viewer")
        async with AsyncExitStack() as stack, ann.connected(room) as peer:
            for _ in range(6):  # on whichever worker takes them
                await stack.enter_async_context(bob.connected(room))
            users: dict[str, int] = {}
            people: dict[str, Any] = {}
            while users != {"1": 1, "2": 6} or len(people) < 2:
                data = (await hears(peer, "presence"))["data"]
                users = data["users"] if data["full"] else {**users, **data["users"]}
                people |= data.get("info", {})
            assert people == {"1": {"name": "ann", "color": "#c2410c"}, "2": {"name": "bob", "color": "#1d4ed8"}}


async def test_who_is_removed_hears_nothing_more_on_either_worker(site: Address) -> None:
    async with person(site, "ann") as ann, person(site, "bob") as bob:
        room = await new_document(ann, bob="editor")
        document = f"documents/{room.partition(':')[2]}"
        async with AsyncExitStack() as stack, ann.connected(room) as peer:
            tabs = [await stack.enter_async_context(bob.connected(room)) for _ in range(6)]
            await bob.ask("DELETE", f"{document}/members/1", status=403)
            await ann.ask("DELETE", f"{document}/members/2", status=204)
            assert (await request(peer, "comment", {"text": "secret"}, room))["event"] == "reply"
            await ann.ask("PUT", f"{document}/members", {"name": "bob", "role": "viewer"})
            for tab in tabs:
                left = await hears(tab, "left")
                assert (left["data"]["room"], left["data"]["reason"]) == (room, "FORBIDDEN")
                await hears_nothing_of(tab, "comment", before="bell")
                assert (await request(tab, "join", {"room": room}))["event"] == "reply"


async def test_a_closed_account_is_disconnected_everywhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, person(site, "ann") as ann, person(site, "bob") as bob:
        await bob.ask("DELETE", "users/1", status=403)
        await ann.ask("DELETE", "users/99", status=404)
        async with bob.connected() as one, bob.connected() as two:
            assert await ann.ask("GET", "users/2/connections") == 2
            await ann.ask("DELETE", "users/2", status=204)
            for peer in (one, two):
                assert await peer.closed() == (4401, "your account is closed")
        assert await ann.ask("GET", "users/2/connections") == 0
        await bob.ask("GET", "me", status=401)
        await bob.ask("POST", "login", {"name": "bob", "password": "bob"}, 401)


async def test_a_login_that_is_renewed_goes_on_and_one_that_is_not_ends(brief: Address) -> None:
    async with person(brief, "ann") as ann, ann.connected() as renewed, ann.connected() as forgotten:
        assert (await request(renewed, "refresh", {"token": "forged"}))["data"]["code"] == "UNAUTHORIZED"
        expired = asyncio.create_task(forgotten.ws.recv())
        while not (await asyncio.wait([expired], timeout=1))[0]:
            ticket = await ann.ask("POST", "login/renew")
            assert (await request(renewed, "refresh", ticket))["event"] == "reply"
        assert json.loads(await expired)["event"] == "session_expired"
        assert (await forgotten.closed())[0] == 4401
        ticket = await ann.ask("POST", "login/renew")
        assert (await request(renewed, "refresh", ticket))["event"] == "reply"


# --- the page


@asynccontextmanager
async def page_of(browser: Browser, site: Address, name: str) -> AsyncIterator[Page]:
    """Somebody's page, logged in; nothing of it goes wrong."""
    context = await browser.new_context()
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(error.message))
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    await page.goto(site.http)
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password").fill(name)
    await page.keyboard.press("Enter")
    await expect(page.locator("#me")).to_have_text(name)
    yield page
    await context.close()
    assert [problem for problem in problems if "401" not in problem] == [], "401: who is not logged in asks who it is"


async def test_the_page_shows_people_comments_typing_and_the_bell_and_a_removal(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as site, page_of(browser, site, "ann") as ann:
        await expect(ann.get_by_role("heading", name="The plan")).to_be_visible()
        async with page_of(browser, site, "bob") as bob:
            for page in (ann, bob):
                await expect(page.get_by_label("Here now").get_by_role("listitem")).to_have_text(["ann", "bob"])
            chip = ann.get_by_label("Here now").get_by_text("bob")
            assert await chip.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(29, 78, 216)"
            await bob.get_by_label("Comment", exact=True).press_sequentially("<b id=evil>Hello</b>")
            await expect(ann.locator("#typing")).to_have_text("bob writing…")
            await bob.keyboard.press("Enter")
            for page in (ann, bob):
                await expect(page.get_by_role("log").get_by_role("listitem")).to_have_text(["bob <b id=evil>Hello</b>"])
                assert await page.locator("#evil").count() == 0
            await expect(ann.locator("#typing")).to_have_text("")
            await expect(ann.locator("#bell-count")).to_have_text("1")
            await ann.reload()
            await expect(ann.locator("#bell-count")).to_have_text("1")
            await expect(ann.get_by_role("log").get_by_role("listitem")).to_have_count(1)
            await expect(bob.locator("#members")).to_be_hidden()
            await ann.get_by_role("button", name="Remove bob").click()
            await expect(bob.locator("#error")).to_have_text("You are no longer a member.")
            await expect(bob.locator("#document")).to_be_hidden()
            await expect(ann.get_by_label("Here now").get_by_role("listitem")).to_have_text(["ann"])
            await ann.get_by_label("Name of the new member").fill("bob")
            await ann.get_by_label("Role").select_option("viewer")
            await ann.get_by_role("button", name="Add").click()
            await expect(bob.get_by_role("heading", name="The plan")).to_be_visible()
            await expect(bob.get_by_label("Comment", exact=True)).to_be_hidden()
            await bob.get_by_role("button", name="Log out").click()
            await expect(bob.get_by_label("Password")).to_be_visible()
            await expect(ann.get_by_label("Here now").get_by_role("listitem")).to_have_text(["ann"])


@pytest.mark.proxies
@pytest.mark.parametrize("proxy", STRIPPING)
async def test_the_page_works_below_a_path_behind_every_proxy(proxy: str, browser: Browser, tmp_path: Path) -> None:
    front = Address(free_port())
    place = tmp_path / "proxy"
    place.mkdir()
    name, run, app, *options = shlex.split(named_blocks()["below a path"].splitlines()[-1])
    assert (name, run, app) == ("velocity-ws", "run", "examples.collab.app:app")
    async with serving(tmp_path, 2, *options) as site:  # but for the port
        lines = documented(proxy, front.port, site.port)
        async with run_proxy(proxy, lines, front.port, place):
            front.http += (
                "/collab" if proxy == "nginx" else "/collab/"
            )  # nginx sends on from one to the other by itself
            async with page_of(browser, front, "ann") as ann, page_of(browser, front, "bob") as bob:
                for page in (ann, bob):
                    await expect(page.get_by_label("Here now").get_by_role("listitem")).to_have_text(["ann", "bob"])
                    assert [cookie["path"] for cookie in await page.context.cookies()] == ["/collab/"]
                await bob.get_by_label("Comment", exact=True).fill("Hello")
                await bob.keyboard.press("Enter")
                await expect(ann.get_by_role("log").get_by_role("listitem")).to_have_text(["bob Hello"])
                await expect(ann.locator("#bell-count")).to_have_text("1")
                await bob.get_by_role("button", name="Log out").click()
                await expect(bob.get_by_label("Password")).to_be_visible()
                assert await bob.context.cookies() == []
                await expect(ann.get_by_label("Here now").get_by_role("listitem")).to_have_text(["ann"])


async def test_the_page_renews_its_login_by_itself(browser: Browser, brief: Address) -> None:
    async with page_of(browser, brief, "bob") as page:
        renewed = []
        page.on("response", lambda answer: renewed.append(answer.status) if "renew" in answer.url else None)
        async with asyncio.timeout(3 * DEADLINE):
            while len(renewed) < 2:
                await page.wait_for_event("response")
        assert set(renewed) == {200}
        await expect(page.locator("#status")).to_have_text("")
        await page.get_by_label("Comment", exact=True).fill("still here")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("log")).to_contain_text("still here")
