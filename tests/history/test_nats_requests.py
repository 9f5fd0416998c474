"""What is sent alone goes out at once, and what is sent beside other things with all of its turn, in order."""

from __future__ import annotations

import asyncio
import re

import pytest

from velocity_ws.history.nats_requests import Requests, Sending


class Wire:
    """What a server gets, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, commands: list[bytes]) -> None:
        self.writes.append(b"".join(commands))

    @property
    def replies(self) -> list[bytes]:
        """Where the answers to messages go, in the order in which these were written."""
        return re.findall(rb"HPUB \S+ (\S+) ", b"".join(self.writes))


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> Requests:
    """A connection to that."""
    found = Requests()
    monkeypatch.setattr(type(found._client), "is_usable", True)
    monkeypatch.setattr(found._client, "write", wire.write)
    return found


def message(name: bytes) -> Sending:
    return name, b"NATS/1.0\r\n\r\n", b"payload of " + name


async def test_what_is_sent_alone_goes_at_once_in_one_write(requests: Requests, wire: Wire) -> None:
    answers = requests.send([message(b"a"), message(b"b")])
    (written,) = wire.writes
    assert written.index(b"payload of a") < written.index(b"payload of b")
    for reply in wire.replies:
        requests._client.message(b"1", reply, b"", reply)
    assert answers.are_there
    requests.send([message(b"c")])
    assert len(wire.writes) == 2
    await asyncio.sleep(0)
    assert len(wire.writes) == 2


async def test_what_is_sent_while_others_wait_goes_with_all_of_its_turn(requests: Requests, wire: Wire) -> None:
    answers = [requests.send([message(b"%d" % number)]) for number in range(5)]
    assert len(wire.writes) == 1
    await asyncio.sleep(0)
    assert len(wire.writes) == 2
    for reply in wire.replies:
        requests._client.message(b"1", reply, b"", reply)
    assert [each.parts for each in answers] == [[(b"", reply)] for reply in wire.replies]


async def test_what_several_callers_send_goes_in_one_write(requests: Requests, wire: Wire) -> None:
    with requests.together():
        for number in range(5):
            requests.send([message(b"%d" % number)])
        assert not wire.writes
        await asyncio.sleep(0)
    (written,) = wire.writes
    assert re.findall(rb"payload of (\d)", written) == [b"0", b"1", b"2", b"3", b"4"]


async def test_nothing_overtakes_a_question_of_the_same_turn(requests: Requests, wire: Wire) -> None:
    asking = asyncio.create_task(requests.ask(b"question", b""))
    await asyncio.sleep(0)
    requests.send([message(b"a")])
    assert not wire.writes
    await asyncio.sleep(0)
    (written,) = wire.writes
    assert 0 <= written.find(b"PUB question") < written.find(b"payload of a")
    asking.cancel()
