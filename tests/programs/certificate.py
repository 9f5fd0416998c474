"""A certificate for a server of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trustme


def certificate(directory: Path) -> dict[str, Any]:
    """What uvicorn needs for TLS, in that directory."""
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    return {"ssl_keyfile": str(directory / "key.pem"), "ssl_certfile": str(directory / "cert.pem")}
