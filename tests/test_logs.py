"""What goes wrong is seen on the console, whoever serves and whoever configured logging; strangers write no line."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import settings
from tests.support.console import COMMANDS, console, says
from velocity_ws import Broker, Server, logs


async def test_what_goes_wrong_is_seen_on_the_console_whoever_serves() -> None:
    async with asyncio.TaskGroup() as group:  # they wait for the engine most of the time
        for way in COMMANDS:
            group.create_task(_is_seen(way), name=way)


async def _is_seen(way: str) -> None:
    forged = "boom\nERROR:    forged"
    async with console(way, WS_BACKPLANE_URL="redis://127.0.0.1:1", WS_BACKPLANE_TIMEOUT="100ms") as served:
        as_uvicorn = "" if way == "hypercorn" else "(?m)^WARNING:  "
        await served.shows(as_uvicorn + r".*engine redis://127.0.0.1:1 \(.*trying again until it is there")
        with pytest.raises(InvalidStatus):
            await served.connect(origin="https://evil.example")
        await served.shows(as_uvicorn + r".*refused because of its origin: a page of 'https://evil\.example'")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as http:
            for path in ("/ws", "/ws/"):  # as a proxy without ``Upgrade`` passes a handshake on
                assert (await http.get(path, headers={"sec-websocket-key": "x"})).status_code == 426
        await served.shows(as_uvicorn + r".*refused with 426: the request came without Upgrade.*which a proxy in front")
        async with served.connect("?user=ann%1b[2K") as client:
            assert await says(client, "boom") == "error"
            assert await says(client, forged, "x\nERROR:    forged\x1b[2K") == "error"
        async with served.connect("?enter=fail") as client:
            await client.wait_closed()
        await served.shows(r"LookupError: nobody may enter")
        as_uvicorn = "" if way == "hypercorn" else "(?m)^ERROR:    "
        found = await served.shows(
            as_uvicorn + r".*exception in .*boom while handling 'boom' \(client \S{22,}, user 'ann\\x1b\[2K'\)\n"
        )
        assert "ZeroDivisionError" in served.text[found.end() :]
        await served.shows(r"exception in .*enter \(client \S{22,}, user -\)\n")
        if way == "uvicorn":
            await served.shows(
                r"(?m)^INFO:     this server carries messages one by one; `velocity-ws run` or `velocity-ws dev`"
            )
        if way == "uvicorn, our classes":
            async with connect(f"ws://127.0.0.1:{served.port}/plain", proxy=None) as client:
                await client.send("y\nERROR:    forged\x1b[2K")
                await client.wait_closed()
            await served.shows("  ValueError: y\n  ERROR:    forged")
        assert served.text.count("exception in ") == 3
        assert served.text.count("refused with 426") == 1
        assert "s3cret" not in served.text
    # Nothing that a stranger sent began a line, or moved a terminal's cursor.
    assert "\x1b" not in served.text
    assert not re.search(r"(?m)^ERROR: +forged", served.text)
    assert "  ValueError: x\n  ERROR:    forged\\x1b[2K" in served.text
    assert r"while handling 'boom\nERROR:    forged'" in served.text


@pytest.mark.parametrize(
    ("way", "how"),
    [("uvicorn, our classes", "basic"), ("Server.run", "dict"), ("Server in a loop", "dict"), ("uvicorn", "null")],
)
async def test_logging_that_an_application_configures_later_takes_each_line_once(way: str, how: str) -> None:
    async with console(way, FAULTS_LOGGING=how) as served, served.connect() as client:
        assert await says(client, "boom") == "error"
        if how != "null":
            await served.shows(r"(?m)^MINE exception in .*boom")
    assert served.text.count("exception in") == (0 if how == "null" else 1)


async def test_the_handshakes_line_has_no_path_that_a_stranger_wrote_out() -> None:
    for way in ("uvicorn, our classes", "Server.run"):
        async with console(way) as served:
            with pytest.raises(InvalidStatus):
                await connect(f"ws://127.0.0.1:{served.port}/a%0AERROR:%1b[2Kx?token=s3cret", proxy=None)
            await served.shows(r'"WebSocket /a%0AERROR%3A%1B%5B2Kx" 403')
            assert "s3cret" not in served.text
            assert "\x1b" not in served.text


async def test_an_embedded_engine_whose_directory_is_wrong_is_seen(tmp_path: Path) -> None:
    (tmp_path / "velocity-ws").mkdir(0o755)
    (tmp_path / "velocity-ws").chmod(0o755)
    async with console("velocity-ws run", WS_BACKPLANE_URL="embedded://x", XDG_RUNTIME_DIR=str(tmp_path)) as served:
        await served.shows(
            r"(?m)^WARNING:  .*there is no connection to the engine embedded://x \(.*nobody else can enter"
        )


def test_a_traceback_without_a_strangers_line_is_left_to_the_formatter(caplog: pytest.LogCaptureFixture) -> None:
    log = logs.get_logger("velocity_ws.test")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        log.error("plain", exc_info=error)
    noted = ValueError("fine")
    noted.add_note("a note\n\x1b")
    log.error("noted", exc_info=noted)
    group = ExceptionGroup("some", [ValueError("a\nb")])
    log.error("group", exc_info=group)
    assert [record.exc_info is not None for record in caplog.records] == [True] * 3
    assert "\x1b" not in caplog.text
    assert "  | ValueError: a\n" in caplog.text
    assert "\n    | b" not in caplog.text


def test_what_a_stranger_chose_is_quoted_and_cut() -> None:
    assert logs.quote("tea\n\x1b\u202e\ud83d") == r"'tea\n\x1b\u202e\ud83d'"
    assert logs.quote("é ü") == "'é ü'"
    assert len(logs.quote("x" * 10_000)) < 210
    assert logs.printable("a\tb\\") == "a\\tb\\"


def test_what_watches_loggers_hears_what_the_console_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, heard = logging.Logger.callHandlers, list[str]()

    def watch(self: logging.Logger, record: logging.LogRecord) -> None:  # as Sentry's SDK does
        heard.append(record.getMessage())
        original(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", watch)
    monkeypatch.setattr(logs, "_console", None)
    for name in ("velocity_ws.test3", "uvicorn.error"):  # as where nothing is configured
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    Server(Broker(settings()))
    logs.get_logger("velocity_ws.test3").error("it failed")
    assert heard == ["it failed"]
    assert capsys.readouterr().err.endswith("it failed\n")


def test_our_loggers_are_silenced_as_others_are() -> None:
    log = logs.get_logger("velocity_ws.test2")
    log.disabled = True  # as ``dictConfig`` does with each logger that it does not name
    assert log.isEnabledFor(logging.ERROR)
    log.setLevel(logging.CRITICAL)
    assert not log.isEnabledFor(logging.ERROR)
