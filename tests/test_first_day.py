"""What goes wrong on a developer's first day is said on the console, once, with what to do; strangers fill no log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel

from tests.support import running, settings
from tests.test_logs import console, says
from velocity_ws import Broker
from velocity_ws.hints import MAX_NAMED


def _never(value: str) -> str:
    raise ValueError(f"{value} is not allowed")


class Said(BaseModel):
    text: str
    count: int = 0
    who: Annotated[str, AfterValidator(_never)] = "nobody"
    more: dict[str, int] = {}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What our loggers say, as level and text."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.levelname} {record.getMessage()}")

    keep = Keep()
    caplog.set_level(logging.INFO, "velocity_ws")
    logging.getLogger("velocity_ws").addHandler(keep)
    yield found
    logging.getLogger("velocity_ws").removeHandler(keep)


async def test_a_misspelled_event_and_data_that_does_not_fit_are_seen_on_the_console() -> None:
    async with console("velocity-ws run") as served:
        async with served.connect() as client:
            for _ in range(2):
                assert await says(client, "bom\x1b[2K") == "error"
                assert await says(client, "boom\nERROR:    forged", ["s3cret"]) == "error"
            await client.send(b"x")
            answer = json.loads(await client.recv())
            assert answer["data"]["code"] == "UNKNOWN_EVENT"
        await served.shows(r"(?m)^WARNING:  no handler for event 'bom\\x1b\[2K' \(there are: boom, 'boom")
        await served.shows(
            r"(?m)^WARNING:  the data of event 'boom\\nERROR: .* does not fit its handler echoed: Input sh"
        )
        await served.shows(r"(?m)^WARNING:  no on_binary hook")
    assert served.text.count("no handler for") == 1
    assert served.text.count("does not fit its handler") == 1
    assert "s3cret" not in served.text


async def test_an_event_without_a_handler_is_named_once_to_both_sides_and_names_are_bounded(said: list[str]) -> None:
    broker = Broker(settings(rate_limit=0))
    broker.on("say")(lambda data: None)
    broker.on("boom")(lambda data: None)
    async with running(broker) as address, address.connect() as peer:
        for _ in range(2):
            answer = await peer.request("sya")
            assert answer["data"]["message"] == "there is no handler for event 'sya'"
        await peer.request("x" * 256)
        for number in range(2 * MAX_NAMED):
            assert (await peer.request(f"e{number}"))["data"]["code"] == "UNKNOWN_EVENT"
    assert said.count("WARNING no handler for event 'sya' (there are: boom, say)") == 1
    assert len([line for line in said if "no handler for event" in line]) == MAX_NAMED
    assert said[-1].startswith(f"WARNING more than {MAX_NAMED} events have come that have no handler")
    assert max(map(len, said)) < 300


async def test_an_event_that_only_on_message_sees_is_a_hint_where_others_have_handlers(said: list[str]) -> None:
    for handled in (["say"], []):
        broker = Broker(settings())
        broker.on_message(lambda client, message: None)
        for event in handled:
            broker.on(event)(lambda data: None)
        async with running(broker) as address, address.connect() as peer:
            for _ in range(2):
                assert (await peer.request("sya"))["event"] == "reply"
    assert [line for line in said if "no handler" in line] == [
        "INFO no handler for event 'sya', only on_message hooks (there are: say)"
    ]


async def test_what_is_wrong_with_data_is_said_without_what_the_client_sent(said: list[str]) -> None:
    broker = Broker(settings())

    @broker.on("say")
    async def say(data: Said) -> None: ...

    @broker.on("other")
    async def other(data: Said) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        wrong = {"count": "s3cret", "who": "s3cret", "more": {"s3cret": "s3cret"}}
        for event in ("say", "say", "other"):
            answer = await peer.request(event, wrong)
            assert answer["data"]["code"] == "INVALID_DATA"
            assert "s3cret" in json.dumps(answer), "its sender is told all of it"
    lines = [line for line in said if "does not fit" in line]
    assert len(lines) == 2
    assert lines[0].startswith("WARNING the data of event 'say' does not fit its handler ")
    parsing = "Input should be a valid integer, unable to parse string as an integer"
    assert f"say: text: Field required; count: {parsing}; who: value error; more.…: {parsing}" in lines[0]
    assert "s3cret" not in "".join(lines)
