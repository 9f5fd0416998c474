"""What runs scripts beside `velocity.js`, in a browser or in Node: one form for all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

__all__ = ["CLIENT", "PATIENCE", "SCRIPT", "Page", "impatient", "script_of"]

PATIENCE = 30.0
"""Seconds that anything may take in which a browser has a part; never waited for when all is well."""

CLIENT = Path(__file__).parents[2] / "src" / "velocity_ws" / "browser" / "velocity.js"
"""The client, as the server has it."""

SCRIPT = """
    const until = async (condition) => {
        while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
    };
    const outcome = (promise) => promise.then((value) => ({ value }), ({ code, message }) => ({ code, message }));
    const AsyncFunction = (async () => {}).constructor;
    const run = (script, velocity, argument) => {
        const names = ["velocity", "connect", "until", "outcome", "argument"];
        return new AsyncFunction(...names, script)(velocity, velocity.connect, until, outcome, argument);
    };
"""
"""Defines `run(script, velocity, argument)`, which runs the body of an async function."""


class Page(Protocol):
    """Something that has loaded `velocity.js`.

    Attributes:
        errors: exceptions and rejections that nobody has caught.
    """

    errors: list[str]

    async def run(self, script: str, argument: Any = None, *, within: float = ...) -> Any:
        """Run the body of an async function; it has `velocity`, `connect`, `until`, `outcome` and `argument`."""


def script_of(script: str, argument: Any, module: str = "/ws/velocity.js") -> str:
    """An expression for a browser: the promise of what the script returns."""
    given = f"{json.dumps(script)}, await import({json.dumps(module)}), {json.dumps(argument)}"
    return f"(async () => {{ {SCRIPT} return run({given}); }})()"


def impatient(milliseconds: int) -> str:
    """The client with another time than 8 s in which a `$ping` must be answered, which no option changes."""
    text = CLIENT.read_text(encoding="utf-8")
    line = "const PONG_TIMEOUT = 8_000;"
    assert text.count(line) == 1
    return text.replace(line, f"const PONG_TIMEOUT = {milliseconds};")
