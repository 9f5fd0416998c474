"""Site: a real Chromium, a page with nothing on it, and a broker that it can reach, to try `velocity.js`.

Knows no test and no handler.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.support import Address
from tests.support.chromium import FLAGS, find_chromium
from tests.support.client_scripts import PATIENCE
from velocity_ws import Broker, Server
from velocity_ws.process.listening import listen

__all__ = ["EXPECTED_ERROR", "Site", "faster", "launch", "site_of", "unused_port"]

EXPECTED_ERROR = re.compile(r"WebSocket connection to .* failed")
"""What Chromium itself writes about an attempt while the server is away."""


@asynccontextmanager
async def launch() -> AsyncIterator[Browser]:
    """A Chromium, until the end of the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        await browser.close()


def unused_port() -> int:
    """A port on which nothing listens."""
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    listener.close()
    return port


class Site:
    """A page with nothing on it, and a broker that remembers what it was told."""

    def __init__(self, broker: Broker, address: Address, page: Page, received: list[str]) -> None:
        self.broker = broker
        self.address = address
        self.page = page
        self.received = received
        """What came, with the number of its connection: `1:join a`."""
        self.console: list[str] = []
        self.errors: list[str] = []

    async def run(self, script: str, argument: Any = None) -> Any:
        """Run the body of an async function in the page; it has `connect`, `until`, `outcome` and `argument`."""
        async with asyncio.timeout(PATIENCE):
            return await self.page.evaluate(
                """async ([script, argument]) => {
                    const velocity = await import("/ws/velocity.js");
                    const until = async (condition) => {
                        while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
                    };
                    const outcome = (promise) => promise.then(
                        (value) => ({ value }),
                        (error) => ({ code: error.code, error: { message: error.message, ...error } }),
                    );
                    const AsyncFunction = (async () => {}).constructor;
                    const names = ["velocity", "connect", "until", "outcome", "argument"];
                    return new AsyncFunction(...names, script)(velocity, velocity.connect, until, outcome, argument);
                }""",
                [script, argument],
            )


@asynccontextmanager
async def site_of(
    browser: Browser, make: Callable[..., Broker], *, script: str = "", **options: Any
) -> AsyncIterator[Site]:
    """A page of a broker that a function makes, which gets the list of what is received, and these options.

    Args:
        browser: where the page is.
        make: makes the broker.
        script: runs in the page before all else.
        options: for the function.
    """
    received: list[str] = []
    broker = make(received, **options)
    blank = HTMLResponse("<!doctype html><title>blank</title><link rel=icon href='data:,'>")
    app = Starlette(routes=[Route("/", blank)])
    async with Server(broker, app, port=0) as server:
        context = await browser.new_context()
        page = await context.new_page()
        site = Site(broker, Address(server.port), page, received)

        def heard(message: ConsoleMessage) -> None:
            if not EXPECTED_ERROR.search(message.text):
                site.console.append(f"{message.type}: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: site.errors.append(error.message))
        if script:
            await page.add_init_script(script)
        await page.add_init_script(WATCH_LEFTOVERS)
        await page.goto(site.address.http + "/")
        yield site
        await context.close()


WATCH_LEFTOVERS = """
const live = new Map();
const { setTimeout: set, clearTimeout: clear } = window;
window.setTimeout = (action, delay) => {
    const id = set(() => (live.delete(id), action()), delay);
    live.set(id, delay);
    return id;
};
window.clearTimeout = (id) => (live.delete(id), clear(id));
window.liveTimers = () => [...live.values()];
const { addEventListener: add, removeEventListener: remove } = window;
window.listeners = 0;
window.addEventListener = (...args) => (window.listeners++, add(...args));
window.removeEventListener = (...args) => (window.listeners--, remove(...args));
"""


def faster(times: int) -> str:
    """A script in front of all others, for a page whose clock runs so many times faster; the network does not."""
    return f"""{{
        const set = globalThis.setTimeout;
        globalThis.setTimeout = (action, delay) => set(action, delay / {times});
        const read = performance.now.bind(performance);
        performance.now = () => read() * {times};
    }}
    """
