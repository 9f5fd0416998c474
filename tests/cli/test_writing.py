"""``velocity-ws js``: the files of the browser client in a folder of an application."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from velocity_ws.asgi.browser_files import BROWSER_FILES, read_browser_file
from velocity_ws.cli import main


def js(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["js", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_gets_what_the_endpoint_serves(tmp_path: Path) -> None:
    folder = tmp_path / "static" / "velocity"
    done = js(folder)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [f"{folder / name}: new" for name in BROWSER_FILES]
    assert contents(folder) == {name: read_browser_file(name).content for name in BROWSER_FILES}


def test_files_of_another_version_are_replaced_and_others_left_alone(tmp_path: Path) -> None:
    js(tmp_path)
    (tmp_path / "velocity.js").write_text("// an older one")
    (tmp_path / "app.js").write_text("// the application's")
    done = js(tmp_path)
    states = {Path(line.partition(": ")[0]).name: line.partition(": ")[2] for line in done.output.splitlines()}
    assert states == {**dict.fromkeys(BROWSER_FILES, "as it was"), "velocity.js": "replaced"}
    assert b"an older one" not in (tmp_path / "velocity.js").read_bytes()
    assert (tmp_path / "app.js").read_text() == "// the application's"


def test_where_nothing_can_be_written_the_command_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert js(tmp_path / "file").exit_code == 2
    done = js(tmp_path / "file" / "below")
    assert done.exit_code == 1
    assert done.output == f"Error: {tmp_path / 'file' / 'below' / 'velocity.js'}: Not a directory\n"
    (tmp_path / "static" / "velocity.js").mkdir(parents=True)
    assert js(tmp_path / "static").output.endswith("velocity.js: Is a directory\n")
    assert js().exit_code == 2
