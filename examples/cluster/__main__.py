"""`python -m examples.cluster`: the chat on four workers, with the engine that they reach each other by.

The page shows which node each person is on. Kill a worker, or the one that runs the engine: its people come back to
another one, and what was said meanwhile is marked there. The engine keeps it on disk, so it survives the engine, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

from velocity_ws import Settings

WORKERS = 4
STORES = Path(__file__).parents[2] / "artifacts"
"""Where the embedded engine keeps what rooms remember: in a folder for each port."""


def main() -> None:
    settings = Settings()
    host, port = settings.host, settings.port
    if settings.backplane_url == "memory://":
        STORES.mkdir(exist_ok=True)
        os.environ["WS_BACKPLANE_URL"] = f"embedded://chat-{port}?store={quote(str(STORES / f'cluster-{port}'))}"
    print(f"velocity-ws chat on {WORKERS} workers: http://{host}:{port}/  (Ctrl+C stops it)", flush=True)
    command = [
        "-m",
        "velocity_ws",
        "run",
        "examples.cluster.app:app",
        "--workers",
        str(WORKERS),
        "--log-level",
        "warning",
    ]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
