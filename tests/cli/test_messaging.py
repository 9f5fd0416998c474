"""``velocity-ws members``, ``history``, ``stats``: what a terminal is shown. ``send`` is tested with an engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support import eventually, running, settings
from velocity_ws import Broker, Client, History
from velocity_ws.cli import main


def test_data_that_is_a_text_without_its_quotes_is_said_with_them() -> None:
    for data, how in (("hello", "'\"hello\"'"), ("it's\n", "'\"it'\"'\"'s\\n\"'")):
        result = CliRunner().invoke(main, ["send", "--event", "e", "--data", data])
        assert result.exit_code == 2
        assert f"a text has quotes of its own: --data {how}\n" in result.output, result.output
    broken = CliRunner().invoke(main, ["send", "--event", "e", "--data", '{"a": }'])
    assert "not JSON: " in broken.output
    assert "quotes of its own" not in broken.output


async def test_what_strangers_chose_is_printed_so_that_it_moves_no_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    url = "memory://printing"
    broker = Broker(settings(backplane_url=url))
    broker.authenticate(lambda request: "ann\x1b[2K\nbob\t\u202e")

    @broker.on_connect
    async def join(client: Client) -> None:
        await broker.join_room(client.id, "tea")

    async with running(broker) as address, address.connect():
        await eventually(broker.get_rooms)
        table, as_json, figures = [
            await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--url", url])
            for arguments in (("members", "tea"), ("members", "tea", "--json"), ("stats",))
        ]
    assert table.output.count("\n") == 1
    assert r"ann\x1b[2K\nbob\t\u202e" in table.output
    assert json.loads(as_json.output)["members"][0]["user"] == "ann\x1b[2K\nbob\t\u202e"
    assert not set("\x1b\u202e") & set(table.output + as_json.output)
    assert len(json.loads(figures.output)["nodes"]) == 1


async def test_what_a_room_remembers_is_printed_with_the_newest_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    url = "memory://printing-history"
    broker = Broker(settings(backplane_url=url))
    broker.rooms("chat:{chat_id}", history=History())

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--url", url])

    async with running(broker):
        send = ["send", "--room", "chat:7", "--event", "said", "--dedupe", "1", "--data"]
        for data in ('"first"', '"first"'):
            assert (await run(*send, data)).exit_code == 0
        assert "conflict" not in (refused := await run(*send, '"other"')).output
        assert refused.exit_code == 1
        await broker.to_room("chat:7").send("said\n", {"of": "a stranger \x1b[2K"})
        table, first = await run("history", "chat:7"), await run("history", "chat:7", "--limit", "1", "--json")
        at = table.output.splitlines()[0].split("\t")[-1]
        rest = await run("history", "chat:7", "--since", at, "--json")
        nothing = await run("history", "other")
    assert table.output.split("\t")[2] == '"first"'
    assert table.output.count("\n") == 2
    assert "\x1b" not in table.output
    assert json.loads(first.output) == json.loads(rest.output)
    assert json.loads(rest.output)[0]["event"] == "said\n"
    assert (nothing.exit_code, "has no history" in nothing.output) == (1, True)
