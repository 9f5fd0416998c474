"""rakaia-streams, as its README has it: the same protocol, in the memory of the process, as it knows no Redis."""

from __future__ import annotations

from typing import Any

from rakaia import StreamStore, create_app

from benchmarks.servers.control import run, serve_asgi


class Rakaia:
    """A server under test. It counts no readers, and broadcasts nothing."""

    async def broadcast(self, data: dict[str, Any]) -> None:
        raise NotImplementedError

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        raise NotImplementedError

    def connected(self) -> int:
        return 0


async def main() -> None:
    """Serve until stdin is closed."""
    await serve_asgi(create_app(store=StreamStore()), Rakaia(), lifespan="off")


if __name__ == "__main__":
    run(main)
