"""The redis.conf, the sentinel.conf and the URL of docs/scaling.md, run as they stand there, on one machine."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.support.engines import ENGINES
from tests.support.redis_servers import works
from tests.support.sentinels import Guarded
from velocity_ws.backplane import create_backplane
from velocity_ws.testing.listener import listening

PAGE = (Path(__file__).parents[3] / "docs/scaling.md").read_text()


def _block(begin: str) -> str:
    (found,) = re.findall(rf"```\w+\n({begin}.*?)```", PAGE, re.DOTALL)
    return str(found)


class _OfThePage(Guarded):
    """Servers that read the page's files, but for where they are."""

    name = "mymaster"

    def __init__(self, directory: Path) -> None:
        super().__init__("valkey", directory, 3, "secret", "guarded", "", None)

    def _server(self, kind: str, directory: Path, options: list[str]) -> Any:
        def lines(port: int) -> str:
            first = self.servers[0].port
            return _block("# redis.conf") + ("" if port == first else f"replicaof 127.0.0.1 {first}\n")

        return self._reads(kind, directory, lines, [])

    def _sentinel(self, kind: str, directory: Path, user: str = "") -> Any:
        def lines(port: int) -> str:
            return _block("# sentinel.conf").replace("10.0.0.1 6379", f"127.0.0.1 {self.servers[0].port}")

        return self._reads(kind, directory, lines, ["--sentinel"])

    def _reads(self, kind: str, directory: Path, lines: Any, more: list[str]) -> Any:
        directory.mkdir()
        file = directory / "server.conf"

        def command(port: int) -> list[str]:
            if not file.exists():
                here = lines(port).replace("bind 0.0.0.0", f"bind 127.0.0.1\nport {port}\ndir {directory}")
                file.write_text(re.sub(r"^#.*\n", "", here))
            return [ENGINES[kind](port)[0], str(file), *more]

        return command


async def test_servers_with_the_files_of_the_page_are_followed(tmp_path: Path) -> None:
    (url,) = re.findall(r"WS_BACKPLANE_URL='(redis\+sentinel://:secret@[^']+)'", PAGE)
    servers = _OfThePage(tmp_path)
    async with AsyncExitStack() as stack:
        for server in [*servers.servers, *servers.sentinels]:
            stack.push_async_callback(server.kill)
        await servers.start()
        for number, sentinel in enumerate(servers.sentinels, 1):
            url = url.replace(f"10.0.0.{number}:26379", f"127.0.0.1:{sentinel.port}")
        async with listening(create_backplane(url), ["a"]) as listener:
            old = servers.servers[0]
            await old.kill()
            await listener.loss()
            await servers.promoted(old)
        await works(url)
