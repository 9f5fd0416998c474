"""What else streams answers that survive, on the same engine. Knows how it is started, not how it works."""

from __future__ import annotations

import sys

from benchmarks.contestants import Contestant

__all__ = ["PEERS", "SERVER"]

SERVER = (sys.executable, "-m", "benchmarks.servers.streaming")


def _peer(name: str, short: str, module: str, *needs: str) -> Contestant:
    command = (sys.executable, "-m", f"benchmarks.servers.{module}")
    return Contestant(name, short, command, needs=needs, everywhere=not needs, framing="sse")


PEERS = (
    _peer("fastapi-resumable-stream", "package", "resumable_package", "fastapi_resumable_stream"),
    _peer("resumable-stream for Python", "port", "resumable_port", "resumable_stream"),
    _peer("list and pub/sub by hand", "pattern", "resumable_pattern"),
)
