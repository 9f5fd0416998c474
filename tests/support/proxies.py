"""nginx and HAProxy, with the lines that docs/deployment.md has for them."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.support import DEADLINE
from tests.support.debian import find_program

__all__ = ["DOCUMENT", "PROXIES", "Proxy", "documented", "run_proxy"]

Proxy = Literal["nginx", "haproxy"]
PROXIES: tuple[Proxy, ...] = ("nginx", "haproxy")
DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment.md"


def documented(proxy: Proxy, listens: int, first: int, second: int) -> str:
    """What the document says for a proxy, with these ports in place of its own."""
    found = re.search(rf"```{proxy}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    text = found[1]
    here = f"127.0.0.1:{listens}"
    for said, meant in (
        ("listen 80;", f"listen {here};"),
        ("bind :80\n", f"bind {here}\n"),
        ("127.0.0.1:8000", f"127.0.0.1:{first}"),
        ("127.0.0.1:8001", f"127.0.0.1:{second}"),
        ("    maxconn 16384\n", "    maxconn 100\n"),  # what a small machine has descriptors for
        ("worker_connections 16384;", "worker_connections 100;"),
    ):
        text = text.replace(said, meant)
    assert all(meant in text for meant in (f" {here}", f"127.0.0.1:{first}", f"127.0.0.1:{second}", " 100"))
    return text


def nginx_command(path: Path) -> list[str]:
    program = find_program("nginx", package="nginx-light", is_server=True)
    return [program, "-p", str(path.parent), "-c", str(path), "-e", "stderr", "-g", "daemon off; master_process off;"]


def haproxy_command(path: Path) -> list[str]:
    return [find_program("haproxy", package="haproxy", is_server=True), "-db", "-q", "-f", str(path)]


@asynccontextmanager
async def run_proxy(proxy: Proxy, text: str, port: int, directory: Path) -> AsyncIterator[None]:
    """The proxy with that configuration, in front, until the end of the block."""
    path = directory / f"{proxy}.conf"
    if proxy == "nginx":
        own = "".join(
            f"    {kind}_temp_path {directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"pid {directory}/pid;\n" + text.replace("http {\n", f"http {{\n    access_log off;\n{own}", 1)
    path.write_text(text, encoding="utf-8")
    command = nginx_command(path) if proxy == "nginx" else haproxy_command(path)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    if process.returncode is not None:
                        assert process.stderr is not None
                        pytest.fail((await process.stderr.read()).decode())
                    await asyncio.sleep(0.01)  # there is no event to wait for
                    continue
                writer.close()
                break
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()
