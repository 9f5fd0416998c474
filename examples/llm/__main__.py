"""`python -m examples.llm`: the chat with a model on two workers, with the engine that they reach each other by.

The page names the worker that it is on. Kill it while it writes an answer: what it has said is kept, on disk, and the
page, back on the other worker, says that the rest is lost, and has the answer written anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

from examples.llm.chat import broker

WORKERS = "2"
STORES = Path(__file__).parents[2] / "artifacts"
"""Where the embedded engine keeps what was asked and answered: in a folder for each port."""


def main() -> None:
    settings = broker.settings
    host, port = settings.host, settings.port
    if settings.backplane_url == "memory://":
        STORES.mkdir(exist_ok=True)
        os.environ.setdefault(
            "WS_NODE_LEASE", "4s"
        )  # in place of ten: who kills a worker wants to see what comes of it
        os.environ["WS_BACKPLANE_URL"] = f"embedded://llm-{port}?store={quote(str(STORES / f'llm-{port}'))}"
    print(f"Answers that survive, on {WORKERS} workers: http://{host}:{port}/  (Ctrl+C stops it)", flush=True)
    command = ["run", "examples.llm.app:app", "--workers", WORKERS, "--log-level", "warning"]
    os.execv(sys.executable, [sys.executable, "-m", "velocity_ws", *command])


if __name__ == "__main__":
    main()
