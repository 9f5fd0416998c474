"""Engines with options of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from tests.support.engines import ENGINES, Engine

__all__ = ["certificates", "certified", "configured"]


@asynccontextmanager
async def configured(kind: str, *options: str) -> AsyncIterator[Engine]:
    """A server with these options, in which ``{port}`` is its port, beside those it always has."""
    server = Engine(kind, lambda port: [*ENGINES[kind](port), *(each.replace("{port}", str(port)) for each in options)])
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def certificates(directory: Path) -> dict[str, str]:
    """Files for TLS on loopback: ``ca``, ``cert`` and ``key``."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: directory / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    return {name: str(path) for name, path in files.items()}


def certified(directory: Path) -> dict[str, str]:
    """What makes a server speak TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    return {"ssl_keyfile": str(directory / "key.pem"), "ssl_certfile": str(directory / "cert.pem")}
