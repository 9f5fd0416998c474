"""The benchmark of connections works from end to end; its figures are for its make target."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.client import masked
from benchmarks.connections.coming import BY_HAND, CPU, OTHERS, OURS, STORM
from benchmarks.connections.growth import COLD, HELD, HOT, UP, held_in
from benchmarks.connections.load import Talk
from benchmarks.connections.report import outcomes
from benchmarks.connections.scenarios import SCENARIOS
from benchmarks.connections.sizes import QUICK, fitting
from benchmarks.connections.visitor import PONG, Visitor
from benchmarks.connections.visits import USERS, token_of
from benchmarks.document import CONNECTIONS, part_of
from benchmarks.scenarios import Figures
from benchmarks.servers.growing import Watch

ROOT = Path(__file__).parent.parent
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
WELCOME = b'{"event":"welcome","data":{"user":"7","room":"1"}}'


def framed(payload: bytes, first: int = 0x81) -> bytes:
    return bytes([first, len(payload)]) + payload


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_a_quick_run_measures_everything_and_every_answer_is_right(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nOf other runs.\n")
    command = [sys.executable, "-m", "benchmarks.connections", "--quick", "--out", str(results)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-1)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    text = results.read_text()
    assert text.startswith("# Results\n\nOf other runs.\n")
    report = part_of(text, CONNECTIONS)
    for scenario in SCENARIOS:
        table = report.partition(f"\n### {scenario.title.format(**asdict(QUICK))}\n")[2].partition("###")[0]
        for name in scenario.names(QUICK):
            assert f"\n| {name} | **" in table
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report
    assert "not measured" not in report


class Door:
    """A server by hand, with one client."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.visitor = Visitor(self._listener.getsockname()[1], 7, 3)
        self._socket, _ = self._listener.accept()
        self.asked = self._socket.recv(4096)

    def say(self, data: bytes) -> int:
        """Send it; how many messages the client finds in it."""
        self._socket.send(data)
        return self.visitor.read()

    def hear(self) -> bytes:
        return self._socket.recv(4096)

    def close(self) -> None:
        for each in (self._socket, self._listener, self.visitor.socket):
            each.close()


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def test_a_visitor_says_who_it_is_and_knows_its_welcome(door: Door) -> None:
    assert f"GET /ws?token={token_of(7)}&room=1 ".encode() in door.asked
    assert b"\r\nOrigin: https://app.example.com\r\n" in door.asked
    assert USERS[token_of(7)] == "7"
    assert door.say(ANSWER + framed(WELCOME)) == 1
    assert door.visitor.is_welcomed()


@pytest.mark.parametrize(
    "said", [[], [WELCOME.replace(b"7", b"8")], [WELCOME, WELCOME]], ids=["none", "wrong", "twice"]
)
def test_what_is_no_welcome_is_found(door: Door, said: list[bytes]) -> None:
    door.say(ANSWER)
    if said:
        door.say(b"".join(framed(each) for each in said))
    assert not door.visitor.is_welcomed()


def test_pings_are_answered_and_are_no_messages(door: Door) -> None:
    door.say(ANSWER)
    assert door.say(framed(b"ping", 0x89)) == 0
    assert door.hear()[0] == masked(b"", PONG)[0]
    assert door.say(framed(WELCOME) + framed(b"ping", 0x89)) == 1
    assert door.visitor.is_welcomed()


def test_an_echo_is_late_from_when_its_message_was_due(door: Door) -> None:
    door.say(ANSWER)
    talk = Talk([door.visitor], every=0.01)
    while talk.said() < 2:
        talk.say()
    door.say(framed(b'{"event":"echo","data":{"seq":0}}') + framed(b'{"event":"echo","data":{"seq":1}}'))
    (second, first), faults = talk.heard()
    assert faults == 0
    assert first - second == pytest.approx(10e6, rel=0.001)


def test_an_echo_that_is_missing_is_a_fault(door: Door) -> None:
    door.say(ANSWER)
    talk = Talk([door.visitor], every=0.01)
    talk.say()
    assert talk.heard() == ([], 1)


async def test_a_watch_tells_work_from_waiting() -> None:
    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    watch.start()
    await asyncio.sleep(0.01)
    time.sleep(0.05)  # noqa: ASYNC251 - the loop is to stand still
    await asyncio.sleep(0.01)
    found = watch.stop()
    assert found["late"] > 40
    assert found["held"] < 20
    watch.start()
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    assert watch.stop()["held"] > 20


def test_targets_are_of_the_rounds_own_ratios_and_of_the_largest_server() -> None:
    def rows(column: str, *values: float) -> list[Figures]:
        return [Figures({column: value, OTHERS: value}) for value in values]

    def grown(value: float) -> list[Figures]:
        return [Figures(dict.fromkeys((*HOT, *COLD), value))]

    held = [Figures({UP: value}) for value in (1.0, 9.0, 6.0)]
    results = {
        "enter": {OURS.name: rows(CPU, 5, 12, 4), BY_HAND.name: rows(CPU, 10, 20, 10)},
        "storm": {OURS.name: rows(STORM, 20, 20), BY_HAND.name: rows(STORM, 25, 25)},
        "connections": {"100 connections": grown(2.0), "200 connections": grown(3.0)},
        "held": {held_in(name, phase): held for name in ("100 connections", "200 connections") for phase in HELD},
    }
    found = {outcome.target: outcome for outcome in outcomes(results)}
    enter = found["velocity-ws: a client that comes and goes, CPU relative to Starlette (quarters 0.45 to 0.55)"]
    assert (enter.measured, enter.verdict) == (0.5, "met")
    storm = found["velocity-ws: one of a storm, CPU relative to Starlette (quarters 0.80 to 0.80)"]
    assert (storm.measured, storm.verdict) == (0.8, "**missed**")
    assert found["delivery: 200 connections relative to 100"].verdict == "**missed**"
    assert found["delivery in every room: 200 connections relative to 100"].limit is None
    (name,) = [name for name in found if name.startswith(held_in("200 connections", HELD[0]))]
    assert (found[name].measured, found[name].verdict) == (6.0, "**missed**")
    assert not any(name.startswith("100 connections, ") for name in found)
    assert found["an echo by a model, CPU relative to a TypedDict"].verdict == "not measured"


@pytest.mark.parametrize(("limit", "fit"), [(1200, 1000), (99_999, 2000), (resource.RLIM_INFINITY, 2000)])
def test_as_many_connections_as_fit(monkeypatch: pytest.MonkeyPatch, limit: int, fit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, limit))
    assert fitting(2000) == fit
