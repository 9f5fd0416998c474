"""React's hooks as a bundle: built by Vite from the installed package, in StrictMode, in a real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.support import DEADLINE, eventually, settings
from tests.support.client_scripts import PATIENCE
from velocity_ws import Broker, Client, ClientError, Close, Message, Server

# The timeout leaves room for the installation of a browser, and of what npm brings.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

expect.set_options(timeout=PATIENCE * 1000)


class Site:
    """The bundle's page, the server it came from, and what that heard."""

    def __init__(
        self, page: Page, broker: Broker, heard: list[str], members: dict[str, bool], decides: asyncio.Event
    ) -> None:
        self.page = page
        self.broker = broker
        self.heard = heard
        self.errors: list[str] = []
        self.shown = 0
        self.members = members
        """Which rooms are open; any other is."""
        self.decides = decides
        """While it is not set, nobody is told whether a room is."""

    async def show(
        self, *rooms: str, url: str | None = "/ws", mark: str = "first", **more: bool | int | str | list[str | None]
    ) -> None:
        """Have the page show one component for each of these."""
        self.shown += 1
        view = {"number": self.shown, "url": url, "rooms": list(rooms), "mark": mark, **more}
        await self.page.evaluate("(view) => window.show(view)", view)
        if url is not None:
            await expect(self.page.locator("ul")).to_have_attribute("data-number", str(self.shown))

    async def expect(self, status: str, *rooms: str) -> None:
        """Wait until it shows this status, and this of the rooms."""
        await expect(self.page.locator("p")).to_contain_text(status)
        await expect(self.page.locator("li")).to_have_text(list(rooms))

    async def has_heard(self, *told: str) -> None:
        """Wait until the server has heard this and nothing else since it was last asked."""
        await eventually(lambda: len(self.heard) >= len(told))
        timers = "new Promise((resolve) => setTimeout(() => setTimeout(resolve)))"  # leaving waits for one
        await self.page.evaluate(timers)
        for client in self.broker.get_clients():
            with pytest.raises(ClientError, match="UNKNOWN_EVENT"):
                await client.ask("anything")  # what is too much would have come before the answer
        assert self.heard == list(told)
        self.heard.clear()

    async def heard_in_page(self, count: int) -> Any:
        """Wait until handlers of the page were called so often; what they got."""
        await self.page.wait_for_function("(count) => window.heard.length >= count", arg=count)
        return await self.page.evaluate("window.heard.splice(0)")


def joined(room: str) -> str:
    return f'{room} joined {{"room":"{room}"}}'


@pytest_asyncio.fixture(loop_scope="session")
async def site(browser: Browser, bundle: Path) -> AsyncIterator[Site]:
    heard: list[str] = []
    members: dict[str, bool] = {}
    decides = asyncio.Event()
    decides.set()
    broker = Broker(settings(drain_timeout=0.2, subprotocols=["first", "second"]))
    rooms = broker.rooms("{name}")

    @broker.on_connect
    async def remember_query(client: Client) -> None:
        own = client.request.url.query.removeprefix("resume=1").removeprefix("&")  # of the application
        heard.append(f"connect {own}".strip())

    @rooms.authorize
    async def may_enter(name: str) -> bool:
        await decides.wait()
        return members.get(name, True)

    @broker.on_message
    async def remember(message: Message) -> None:
        said = message.data or {}
        what = [message.event, said.get("room"), said.get("data")]
        heard.append(" ".join([str(each) for each in what if each is not None]))

    @broker.on("load")
    async def load() -> str:
        if not members.get("load", True):
            raise ClientError("NO_DATABASE", "it is away")
        return f"loaded {heard.count('load')}"

    @broker.on("say")
    async def say(data: dict[str, str]) -> None:
        await broker.to_room(data["room"]).send("said", {"text": data["text"]})

    @broker.on("stream_read")
    async def read() -> None:
        """There is nothing behind what the page has."""

    @broker.on("stream_cancel")
    async def cancel(data: dict[str, str]) -> None:
        if not members.get("cancel", True):
            raise ClientError("FORBIDDEN", "not yours")
        await broker.to_room("tea").send("stream", {"id": data["id"], "from": 0, "text": "", "end": "cancelled"})

    @broker.on_disconnect
    async def forget(close: Close) -> None:
        heard.append(f"disconnect {close.code}")

    app = Starlette(routes=[Mount("/", StaticFiles(directory=bundle, html=True))])
    async with Server(broker, app, port=0) as server:
        context = await browser.new_context()
        page = await context.new_page()
        site = Site(page, broker, heard, members, decides)
        page.on("console", lambda message: site.errors.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: site.errors.append(error.message))  # unhandled rejections, too
        await page.goto(f"http://127.0.0.1:{server.port}/")
        yield site
        await context.close()
        assert site.errors == []


def the_client(site: Site) -> Client:
    (client,) = site.broker.get_clients()
    return client


JOIN = "join {} {{'from': 'page'}}"


async def test_strict_mode_opens_one_connection_and_joins_each_room_once(site: Site) -> None:
    await site.show("tea", "milk", "tea")
    await site.expect("open", joined("tea"), joined("milk"), joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"), JOIN.format("milk"))


async def test_a_room_is_left_with_the_last_component_that_uses_it(site: Site) -> None:
    await site.show("tea", "milk", "tea")
    await site.expect("open", joined("tea"), joined("milk"), joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"), JOIN.format("milk"))
    await site.show("tea", "milk")
    await site.expect("open", joined("tea"), joined("milk"))
    await site.has_heard()
    await site.show("milk", "tea")  # in each other's place: nobody is left, and nothing is sent
    await site.expect("open", joined("milk"), joined("tea"))
    await site.has_heard()
    await site.show("milk")
    await site.has_heard("leave tea")
    await site.show("milk", "tea")
    await site.expect("open", joined("milk"), joined("tea"))
    await site.has_heard(JOIN.format("tea"))


async def test_the_connection_is_closed_with_the_last_component_that_uses_it(site: Site) -> None:
    await site.show()
    await site.expect("open")
    await site.has_heard("connect")
    await site.show(url=None)
    await site.has_heard("disconnect 1000")
    await site.show("tea")
    await site.expect("open", joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"))


async def test_another_url_is_another_connection(site: Site) -> None:
    await site.show("tea")
    await site.expect("open", joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"))
    await site.show("tea", url="/ws?as=bob")
    await eventually(lambda: len(site.heard) == 4)
    assert sorted(site.heard) == sorted(["connect as=bob", JOIN.format("tea"), "leave tea", "disconnect 1000"])
    await site.expect("open", joined("tea"))
    assert the_client(site).request.query_params["as"] == "bob"


async def test_functions_that_are_others_in_each_render_open_nothing_anew_and_the_latest_is_called(site: Site) -> None:
    await site.show("tea", url="function")
    await site.expect("open", joined("tea"))
    await site.has_heard("connect mark=first", JOIN.format("tea"))
    await site.show("tea", url="function", mark="second")
    await site.has_heard()
    assert the_client(site).subprotocol == "first"
    await the_client(site).disconnect(1012)
    await site.has_heard("disconnect 1012", "connect mark=second", JOIN.format("tea"))
    assert the_client(site).subprotocol == "second"


async def test_components_that_name_the_same_url_share_one_connection(site: Site) -> None:
    await site.show(own=2)
    own = site.page.locator("em")
    await expect(own).to_have_text(["open joined"] * 2)
    await site.has_heard("connect", JOIN.format("shared"))
    await site.broker.to_room("shared").send("said", {"text": "hello"})
    assert await site.heard_in_page(2) == ["own: hello"] * 2
    await site.show(own=1, url="/ws?as=bob")  # the provider's goes elsewhere, and theirs stays
    await site.expect("open")
    await site.has_heard("connect as=bob")
    await expect(own).to_have_text(["open joined"])
    await site.show(url="/ws?as=bob")
    await site.has_heard("disconnect 1000")


async def test_the_latest_handler_hears_the_events_of_its_room_alone(site: Site) -> None:
    await site.show("tea", "milk", mark="first")
    await site.expect("open", joined("tea"), joined("milk"))
    await site.page.get_by_role("button").click()
    assert await site.heard_in_page(1) == ["first tea: hello in tea"]
    await site.show("tea", "milk", mark="second")
    await site.broker.to_room("milk").send("said", {"text": "moo"})
    await site.broker.to_room("tea").send("said", {"text": "hot"})
    assert await site.heard_in_page(2) == ["second milk: moo in milk", "second tea: hot in tea"]


async def test_who_is_refused_is_told_why_and_nothing_is_left(site: Site) -> None:
    site.members["private"] = False
    await site.show("private", "tea")
    await site.expect("open", "private refused null FORBIDDEN", joined("tea"))
    await site.has_heard("connect", JOIN.format("private"), JOIN.format("tea"))
    site.members["tea"] = False
    await site.broker.reauthorize("tea")
    await site.expect("open", "private refused null FORBIDDEN", 'tea refused {"room":"tea"} FORBIDDEN')
    await site.show()
    await site.expect("open")
    await site.has_heard()
    await site.show("private")
    await site.expect("open", "private refused null FORBIDDEN")
    site.members["private"] = True
    site.heard.clear()
    await site.show("private", "private")  # another component asks anew, and counts alone
    await site.expect("open", "private refused null FORBIDDEN", joined("private"))
    await site.show("private")
    await site.has_heard(JOIN.format("private"), "leave private")


async def test_rooms_are_joined_again_after_a_restart(site: Site) -> None:
    await site.show("tea", "tea")
    await site.expect("open", joined("tea"), joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"))
    await the_client(site).disconnect(1012)
    await site.has_heard("disconnect 1012", "connect", JOIN.format("tea"))
    await site.expect("open", joined("tea"), joined("tea"))
    site.members["tea"] = False
    await the_client(site).disconnect(1012)
    await site.expect("open", *['tea refused {"room":"tea"} FORBIDDEN'] * 2)
    assert await site.heard_in_page(2) == ["first tea: FORBIDDEN"] * 2
    await site.has_heard("disconnect 1012", "connect", JOIN.format("tea"))


async def test_the_last_message_of_a_room_renders_only_who_looks_at_it(site: Site) -> None:
    await site.show("tea", "watched")
    await site.expect("open", joined("tea"), joined("watched"))
    await expect(site.page.locator("i")).to_have_text("none")
    renders = await site.page.evaluate("window.rooms")
    for room in ("tea", "watched"):
        await site.broker.to_room(room).send("moved", {"x": 1, "y": 2})
    await expect(site.page.locator("i")).to_have_text("moved")
    assert await site.page.evaluate("window.rooms") == renders


async def test_what_waits_before_it_is_shown_opens_and_joins_nothing_until_then(site: Site) -> None:
    await site.show(suspends=True)
    await expect(site.page.locator("b")).to_have_text("waits")
    await site.has_heard("connect")
    await site.page.evaluate("window.resume()")
    await site.expect("open", joined("tea"))
    await site.has_heard(JOIN.format("tea"))


async def test_what_is_hidden_leaves_its_room_and_joins_it_again_when_it_is_shown(site: Site) -> None:
    await site.show("tea")
    await site.expect("open", joined("tea"))
    await site.has_heard("connect", JOIN.format("tea"))
    await site.show("tea", hidden=True)
    await site.has_heard("leave tea")
    site.decides.clear()
    await site.show("tea")
    await site.expect("open", 'tea joining {"room":"tea"}')
    site.decides.set()
    await site.expect("open", joined("tea"))
    await site.has_heard(JOIN.format("tea"))


async def test_without_a_url_a_bundle_says_what_to_give_it(site: Site) -> None:
    said = await site.page.evaluate("() => { try { window.connect(); } catch (error) { return String(error); } }")
    assert "this module does not come from the server" in said
    assert 'connect("/ws")' in said
    async with asyncio.timeout(DEADLINE):
        assert await site.page.evaluate(
            "() => { const ws = window.connect('/ws'); return ws.join('tea').finally(() => ws.close()); }"
        ) == {"room": "tea"}


async def test_the_state_of_a_room_is_loaded_when_it_is_joined_and_when_it_is_joined_again(site: Site) -> None:
    await site.show(loads="tea")
    await expect(site.page.locator("s")).to_have_text("loaded 1 joined")
    await site.show("tea", loads="tea", mark="second")
    await expect(site.page.locator("li")).to_have_text([joined("tea")])
    await the_client(site).disconnect(1012, "restarting, retry_after=0.01")
    await expect(site.page.locator("s")).to_have_text("loaded 2 joined")
    await site.show("tea")
    assert site.heard.count("load") == 2
    assert "leave tea" not in site.heard


async def test_a_room_whose_state_cannot_be_loaded_is_not_joined(site: Site) -> None:
    site.members["load"] = False
    await site.show(loads="tea")
    await expect(site.page.locator("s")).to_have_text("nothing refused NO_DATABASE")
    await eventually(lambda: site.broker.get_rooms() == [])


# --- streams


async def say(site: Site, start: int, text: str, id_: str = "a", **more: str) -> None:
    """Send a piece of a stream to the members of its room."""
    await site.broker.to_room("tea").send("stream", {"id": id_, "from": start, "text": text, **more})


async def test_a_stream_is_shown_as_it_comes_and_rendered_once_for_what_comes_together(site: Site) -> None:
    shown = site.page.locator("button.stream")
    await site.show("tea", streams=["a", None])
    await site.expect("open", joined("tea"))
    await expect(shown).to_have_text(["[] null", "[] null"])
    await site.has_heard("connect", JOIN.format("tea"), "stream_read")  # StrictMode mounts it twice
    renders = await site.page.evaluate("window.streams")
    for number in range(200):
        await say(site, number, "x")
    await say(site, 200, "", end="done")
    await expect(shown).to_have_text([f"{'x' * 200}[] done", "[] null"])
    assert await site.page.evaluate("window.streams") - renders < 100  # one by one it is 200, and one in 16 ms some ten
    await site.show("tea", streams=["a", "b"])  # what has come is there at once
    await expect(shown).to_have_text([f"{'x' * 200}[] done", "[] null"])
    await site.broker.to_room("tea").send("stream", {"id": "b", "from": 0, "items": [1, 2]})
    await site.broker.to_room("tea").send("stream", {"id": "b", "from": 2, "items": [3], "end": "lost"})
    await expect(shown.last).to_have_text("[1,2,3] lost")


async def test_a_stream_goes_on_over_a_restart_and_another_mount(site: Site) -> None:
    shown = site.page.locator("button.stream")
    await site.show("tea", streams=["a"])
    await site.expect("open", joined("tea"))
    await say(site, 0, "one ")
    await expect(shown).to_have_text(["one [] null"])
    await the_client(site).disconnect(1012, "restarting, retry_after=0.01")
    await eventually(lambda: site.broker.get_rooms() == ["tea"])
    await say(site, 0, "one two ")
    await expect(shown).to_have_text(["one two [] null"])
    await site.show("tea")
    await say(site, 8, "three", end="done")
    await site.show("tea", streams=["a"])
    await expect(shown).to_have_text(["one two three[] done"])


async def test_a_stream_whose_room_is_left_says_so_until_it_is_joined_again(site: Site) -> None:
    shown = site.page.locator("button.stream")
    await site.show("tea", streams=["a"])
    await site.expect("open", joined("tea"))
    await say(site, 0, "one ")
    await expect(shown).to_have_text(["one [] null"])
    await site.show(streams=["a"])
    await expect(shown).to_have_text(["one [] null ABORTED"])
    await site.show("tea", streams=["a"])
    await expect(shown).to_have_text(["one [] null"])
    await say(site, 4, "two", end="done")
    await expect(shown).to_have_text(["one two[] done"])


async def test_a_stream_can_be_cancelled_by_who_may(site: Site) -> None:
    shown = site.page.locator("button.stream")
    await site.show("tea", streams=["a", None])
    await site.expect("open", joined("tea"))
    await shown.last.click()
    assert await site.heard_in_page(1) == ["not cancelled: CLOSED"]
    site.members["cancel"] = False
    await shown.first.click()
    assert await site.heard_in_page(1) == ["not cancelled: FORBIDDEN"]
    site.members["cancel"] = True
    await shown.first.click()
    await expect(shown.first).to_have_text("[] cancelled")
