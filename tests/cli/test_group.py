"""The errors of ``velocity-ws``, whatever its command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.command import kept_port
from velocity_ws.cli import main


def test_errors_of_each_command_have_lines_and_what_they_quote_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    for command in (["members", "tea"], ["send", "--event", "e"], ["stats"], ["run", "tests.programs.options:app"]):
        result = CliRunner().invoke(main, command, env={"WS_BACKPLANE_URL": "redis://", "WS_HOST": "", "WS_PORT": None})
        assert result.exit_code == 1
        assert result.output.startswith("Error: unusable settings:\n  WS_BACKPLANE_URL: where is it?"), result.output
    result = CliRunner().invoke(main, ["stats"], env={"WS_SLOW_CLIENT": "x\n\x1b[2K", "WS_PORT": "many"})
    lines = result.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Error", "  WS_PORT", "  WS_SLOW_CLIENT"]
    assert "\x1b" not in result.output


def test_an_engine_that_is_not_reached_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WS_BACKPLANE_URL", raising=False)
    commands = (["members", "tea"], ["send", "--event", "e"], ["stats"], ["history", "chat:1"])
    for url in ("embedded://nobody-runs-it", f"redis://127.0.0.1:{kept_port()}", f"nats://127.0.0.1:{kept_port()}"):
        for command in commands:
            for patience in (0.2, 2.0, 10.0):
                monkeypatch.setattr("velocity_ws.cli.messaging.PATIENCE", patience)
                result = CliRunner().invoke(main, [*command, "--url", url])
                (line,) = result.output.splitlines()
                if line != "Error: the engine has not answered yet":  # it was too short for a first try, in this moment
                    break
            assert result.exit_code == 1
            assert line.startswith(f"Error: there is no connection to the engine {url} ("), line
            assert line.endswith(")"), line
    for command in commands:
        (line,) = CliRunner().invoke(main, command).output.splitlines()
        assert "memory:// is none: give --url, or set WS_BACKPLANE_URL" in line
