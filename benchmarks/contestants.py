"""The programs that are compared, and whether they can run here. Knows their names, and nothing of how they work.

To compare another one, write a program that obeys the commands of `benchmarks.servers.control`, and name it here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["BASELINE", "CONTESTANTS", "OURS", "Contestant"]


@dataclass(frozen=True)
class Contestant:
    """A program under test.

    Attributes:
        name: in the tables.
        short: for ``--only``.
        command: what starts it, without ``--deflate``.
        needs: what must be importable.
        everywhere: whether it runs with what the project's tests need.
        deflate: whether it can negotiate permessage-deflate.
        cannot: keys of scenarios that it takes no part in.
        framing: ``plain``, or ``socketio`` for Engine.IO packets.
    """

    name: str
    short: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    everywhere: bool = False
    deflate: bool = True
    cannot: tuple[str, ...] = ()
    framing: str = "plain"

    def missing(self) -> str:
        """What is not installed; empty where everything is."""
        return ", ".join(name for name in self.needs if find_spec(name) is None)


def _python(module: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.servers.{module}", *options)


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
)
