"""The programs that are compared, and whether they can run here. Knows how they are started, not how they work.

To compare another one, write a program that obeys the commands of `benchmarks.servers.control`, and name it here.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.process import ROOT

__all__ = ["BASELINE", "CONTESTANTS", "OURS", "Contestant", "prepare"]

HERE = Path(__file__).parent
FLOOR = Path(tempfile.gettempdir()) / f"velocity-ws-floor-{os.getpid()}"
NODE = HERE / "node"


@dataclass(frozen=True)
class Contestant:
    """A program under test.

    Attributes:
        name: in the tables.
        short: for ``--only``.
        command: what starts it, without ``--deflate``.
        needs: what must be importable, or with a slash before it, on the path.
        everywhere: whether it runs with what the project's tests need.
        deflate: whether it can negotiate permessage-deflate.
        cannot: keys of scenarios that it takes no part in.
        framing: ``plain``, or ``socketio`` for Engine.IO packets.
        slow: whether it gets a fifth of everything, because it would take longer than all others together.
        root: the checkout that it runs from, with this interpreter; by default this one.
    """

    name: str
    short: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    everywhere: bool = False
    deflate: bool = True
    cannot: tuple[str, ...] = ()
    framing: str = "plain"
    slow: bool = False
    root: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        """Variables that it has besides this process's: its checkout's source goes before what is installed."""
        return {} if self.root == ROOT else {"PYTHONPATH": str(self.root / "src")}

    def missing(self) -> str:
        """What is not installed; empty where everything is."""
        return ", ".join(name.removeprefix("/") for name in self.needs if not _installed(name))


_broken: set[str] = set()
"""What is there, but could not do its part."""


def _installed(name: str) -> bool:
    if name in _broken:
        return False
    return shutil.which(name[1:]) is not None if name.startswith("/") else find_spec(name) is not None


def _python(module: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.servers.{module}", *options)


def _node(program: str) -> tuple[str, ...]:
    return ("node", "--expose-gc", str(NODE / f"{program}.js"))


OURS = Contestant("velocity-ws", "velocity", _python("velocity"), everywhere=True)
BASELINE = Contestant("Starlette send_text loop", "send_text", _python("connection_manager"), everywhere=True)
"""What the others are compared with."""
CONTESTANTS: tuple[Contestant, ...] = (
    OURS,
    Contestant("velocity-ws, plain ASGI", "portable", _python("velocity", "--portable")),
    BASELINE,
    Contestant("Starlette send_json loop", "send_json", _python("connection_manager", "--json")),
    Contestant("websockets broadcast()", "websockets", _python("websockets_broadcast"), everywhere=True),
    Contestant("picows", "picows", _python("picows_server"), needs=("picows",), deflate=False),
    Contestant("aiohttp", "aiohttp", _python("aiohttp_server"), needs=("aiohttp",)),
    Contestant("python-socketio", "socketio", _python("socketio_server"), needs=("socketio",), framing="socketio"),
    Contestant("Django Channels, in memory", "channels", _python("channels_server"), needs=("channels",), slow=True),
    Contestant("Litestar channels", "litestar", _python("litestar_server"), needs=("litestar",)),
    Contestant("Node ws", "node_ws", _node("ws"), needs=("/node", "/npm")),
    Contestant("Node Socket.IO", "node_socketio", _node("socketio"), needs=("/node", "/npm"), framing="socketio"),
    Contestant(
        "C, ready bytes (the floor)",
        "floor",
        (str(FLOOR),),
        needs=("/cc",),
        deflate=False,
        cannot=("rooms", "echo"),
    ),
)


def prepare(contestants: Sequence[Contestant]) -> None:
    """Build what is not Python: the floor with the C compiler, the packages on Node with npm.

    Where that fails, its own output says why, and those that need it count as not installed.
    """
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    builds = {"/cc": (["cc", "-O2", "-o", str(FLOOR), str(HERE / "floor.c")], HERE), "/npm": (npm, NODE)}
    needs = {need for contestant in contestants if not contestant.missing() for need in contestant.needs}
    for need in needs & builds.keys():
        command, folder = builds[need]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            _broken.add(need)
    atexit.register(FLOOR.unlink, missing_ok=True)
