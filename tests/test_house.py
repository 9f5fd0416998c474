"""The house: what is public, and which room may see which."""

from __future__ import annotations

import asyncio
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "velocity_ws": {
        *("Broker", "Client", "Emitter", "Message", "Server", "Settings", "Target"),
        *("WebSocketApp", "WebSocketMiddleware"),
        *("Close", "CloseCode", "Reject", "may_reconnect"),
        *("ClusterStats", "Members", "RoomMember", "Stats"),
        *("BackplaneUnavailable", "BrokerError", "ClientError", "ClientGone", "ClientIdError", "ClientNotFound"),
        *("ClientTimeout", "EncodeError", "HookError", "InvalidCloseError", "InvalidNameError", "InvalidPathError"),
        *("ServerError", "SettingsError", "VelocityError", "WouldDeadlockError"),
        "__version__",
    },
    "velocity_ws.backplane": {"Backplane", "Lost", "Receive", "create_backplane"},
    "velocity_ws.testing": {"BackplaneContract", "Listener"},
    "velocity_ws.uvicorn": {"HTTPProtocol", "WebSocketProtocol", "new_event_loop"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_there_and_nothing_else(module: str) -> None:
    public = import_module(module)
    assert set(public.__all__) == PUBLIC[module]
    assert all(hasattr(public, name) for name in PUBLIC[module])


async def lint_imports(folder: Path) -> tuple[int | None, str]:
    """Check the house as `make lint` does, in a folder with its sources; the exit code and what was said."""
    command = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("sessions/session.py", "from velocity_ws.asgi.app import WebSocketApp", "Rooms"),
        ("new_room/__init__.py", "", "Rooms"),
        ("concurrency/eager.py", "from velocity_ws.concurrency.portal import Home", None),
        ("cluster/link.py", "import uvicorn", "uvicorn is known"),
        ("messages/scan.py", "import asyncio", "Pure rooms"),
    ],
)
async def test_an_arrow_that_points_upward_fails_the_check(
    tmp_path: Path, module: str, line: str, broken: str | None
) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src/velocity_ws" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    code, said = await lint_imports(tmp_path)
    failed = [line for line in said.splitlines() if line.endswith("BROKEN") or " BROKEN (" in line]
    if broken is None:
        assert (code, failed) == (0, []), said
    else:
        assert code, said
        assert any(line.startswith(broken) for line in failed), said
