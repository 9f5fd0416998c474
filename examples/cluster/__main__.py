"""`python -m examples.cluster`: the chat on four workers, with the engine that they reach each other by.

The page shows which node each person is on. Kill a worker, or the one that runs the engine, and look.
"""

from __future__ import annotations

import os
import sys

from velocity_ws import Settings

WORKERS = 4


def main() -> None:
    settings = Settings()
    host, port = settings.host, settings.port
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
