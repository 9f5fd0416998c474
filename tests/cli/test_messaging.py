"""``velocity-ws members`` and ``stats``: what a terminal is shown of the nodes. ``send`` is tested with an engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import eventually, running, settings
from velocity_ws import Broker, Client
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
