"""HTTP base: what uvicorn's HTTP classes have in common, for type checkers; they have no such base. Knows no parser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

__all__ = ["UvicornHTTP"]

if TYPE_CHECKING:

    class UvicornHTTP(asyncio.Protocol):
        """What a mixin may rely on that stands before one of uvicorn's HTTP classes."""

        app_state: dict[str, Any]
        client: tuple[str, int] | None
        config: Config
        cycle: Any
        flow: FlowControl
        logger: Any
        loop: asyncio.AbstractEventLoop
        server: tuple[str, int | None] | None
        server_state: ServerState
        transport: asyncio.Transport

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None: ...
        def connection_made(self, transport: asyncio.Transport) -> None: ...  # type: ignore[override]
        def shutdown(self) -> None: ...
        def _unset_keepalive_if_required(self) -> None: ...

else:
    UvicornHTTP = object
