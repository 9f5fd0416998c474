"""velocity-ws with streams over HTTP, which a program with a key creates and appends to.

``--backplane URL`` makes it a node among others.
"""

from __future__ import annotations

from benchmarks.http_streams.forms import KEY
from benchmarks.servers.control import run, serve_asgi
from benchmarks.servers.velocity import CLASSES, Velocity


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Velocity(api_keys=KEY, ping_interval=0)
    await serve_asgi(contestant.app, contestant, lifespan="on", **CLASSES)


if __name__ == "__main__":
    run(main)
