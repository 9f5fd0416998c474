"""A public and an internal endpoint in one application; ``INTERNAL`` is what the broker of the second is called."""

from __future__ import annotations

import os

from starlette.applications import Starlette

from velocity_ws import Broker, Client, Settings, WebSocketApp, WebSocketMiddleware

app = Starlette()
public = Broker(Settings(_env_file=None))
public.attach(app)
internal = Broker(Settings(_env_file=None), name=os.environ["INTERNAL"])
internal.attach(app, "/internal")

wrapped = WebSocketMiddleware(WebSocketMiddleware(WebSocketApp(public), public), internal)


@public.on("who")
@internal.on("who")
async def who(client: Client) -> int:
    """The process that serves it."""
    return os.getpid()


@internal.on("tell")
async def tell(data: str) -> None:
    """Tell the internal ones something."""
    await internal.broadcast("secret", data)
    await public.broadcast("news")
