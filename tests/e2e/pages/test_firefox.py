"""A real Firefox: what happens to its pages that does not happen in Chromium. `make firefox` runs this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.support import eventually
from tests.support.client_scripts import PATIENCE, impatient
from tests.support.dead_network import network
from tests.support.firefox import Firefox, FirefoxTab, firefox
from tests.support.sites import Site, site_of
from velocity_ws import may_reconnect

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300), pytest.mark.soak]

JOINED = "until(() => seen.joined.length >= argument); await ws.request('echo'); return seen"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firefox]:
    async with firefox(tmp_path_factory.mktemp("firefox")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with site_of() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Firefox, site: Site) -> AsyncIterator[FirefoxTab]:
    """A page that is joined."""
    tab = await browser.tab(site.address.http + "/live")
    await tab.run(f"await {JOINED}", 1)
    yield tab
    assert tab.errors == []
    await tab.close()


async def leave(site: Site, tab: FirefoxTab) -> float:
    """Have a page go; the seconds until its server has heard of it.

    Firefox ends its connection before it asks for the next page, and until that comes the old one may have another.
    """
    began = asyncio.get_running_loop().time()
    await tab.goto(site.address.http + "/elsewhere")
    await eventually(lambda: not site.broker.get_clients(), within=PATIENCE)
    entry = site.heard("disconnect")[-1]
    assert may_reconnect(entry.data.code)
    return entry.at - began


async def test_50_departures_leave_no_ghost_and_it_is_back_at_once(
    site: Site, tab: FirefoxTab, say: Callable[[str], None]
) -> None:
    heard, returned = [], []
    for _ in range(50):
        heard.append(await leave(site, tab))
        await tab.back("/live")
        seen = await tab.run(f"await {JOINED}", 1)
        returned.append(seen["joined"][-1][1] / 1000)
        assert len(site.broker.get_clients()) == 1
    more = len(site.heard("connect")) - 51
    say(f"50 departures: {more} connections more, heard in {max(heard):.3f} s, back in {max(returned):.3f} s")
    assert max(heard) < 1
    assert max(returned) < 1


async def test_a_page_without_a_connection_is_kept_and_connects_when_it_is_back(site: Site, tab: FirefoxTab) -> None:
    await tab.evaluate("void (Math.random = () => 0.99)")
    await tab.evaluate("void (ws.close(), ws.reconnect())")
    await tab.run(f"await {JOINED}", 2)
    for _ in range(6):  # until the next attempt is far enough
        for client in site.broker.get_clients():
            await client.disconnect(4000)
        await tab.run("await until(() => ws.status === 'waiting')")
        if await tab.evaluate("seen.statuses.at(-1)[1].delay") > 4000:
            break
        await tab.run("await until(() => ws.status === 'open')")
    connects = len(site.heard("connect"))
    await tab.goto(site.address.http + "/elsewhere")
    assert len(site.heard("connect")) == connects
    await tab.back("/live")
    await eventually(lambda: len(site.heard("connect")) == connects + 1, within=1)
    assert (await tab.run("await ws.request('echo'); return seen"))["persisted"] is True


@pytest.mark.parametrize("link", ["#file", "#nothing"])
async def test_a_page_is_back_after_a_link_that_leads_nowhere(
    site: Site, tab: FirefoxTab, link: str, say: Callable[[str], None]
) -> None:
    began = asyncio.get_running_loop().time()
    await tab.click(link)
    gone = await site.hears("disconnect", 1, within=PATIENCE)
    assert gone.data.code == 1001
    back = await site.hears("joined", 2, within=PATIENCE)
    say(f"{link}: gone after {gone.at - began:.3f} s, joined again {back.at - gone.at:.3f} s after it")
    assert back.at - gone.at < 5  # the browser itself delays connections after one that has ended
    assert (await tab.run("await ws.request('echo'); return ws.rooms")) == ["room:1"]


async def test_a_dead_network_is_noticed(browser: Firefox, say: Callable[[str], None]) -> None:
    client = impatient(400)
    async with site_of(client=client, allowed_origins="*") as site, network(site.address.port) as way:
        tab = await browser.tab(f"http://127.0.0.1:{way.port}/")
        tab.module = "/client.js"
        await tab.run(
            """
            globalThis.ws = connect("/ws", { livenessTimeout: 400, connectTimeout: 500, maxDelay: 100 });
            await ws.join("room:1");
            """
        )
        way.die()
        began = asyncio.get_running_loop().time()
        await tab.run("ws.send('note', 1); await until(() => ws.status !== 'open')")
        say(f"noticed after {asyncio.get_running_loop().time() - began:.1f} s")
        way.live()
        began = asyncio.get_running_loop().time()
        await tab.run("await until(() => ws.status === 'open')", within=60)
        await tab.run("await ws.request('echo')")
        say(f"back {asyncio.get_running_loop().time() - began:.1f} s after the network")
        assert tab.errors == []
        await tab.close()


async def test_a_hidden_page_comes_back_after_a_restart(site: Site, browser: Firefox, tab: FirefoxTab) -> None:
    other = await browser.tab(site.address.http + "/")
    assert await tab.evaluate("document.visibilityState") == "hidden"
    await site.stop()
    await site.start()
    await site.hears("joined", 2, within=PATIENCE)
    await other.close()
