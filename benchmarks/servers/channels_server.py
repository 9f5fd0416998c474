"""Django Channels on uvicorn, with the in-memory layer: a group for all, and one for each room.

``--backplane URL`` has the layer of channels_redis instead, and ``--pubsub`` its other one.
"""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings

from benchmarks.servers.control import option, room_in, run, serve_asgi

LAYER: dict[str, Any] = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
if URL := option("--backplane"):
    name = "pubsub.RedisPubSubChannelLayer" if "--pubsub" in sys.argv else "core.RedisChannelLayer"
    # It waits for messages for 5 s at a time, which is when redis-py, by its default, gives up a connection.
    HOST = {"address": URL, "socket_timeout": None}
    LAYER = {"BACKEND": f"channels_redis.{name}", "CONFIG": {"hosts": [HOST]}}
settings.configure(CHANNEL_LAYERS={"default": LAYER})
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402

EVERYONE = "everyone"


class Consumer(AsyncJsonWebsocketConsumer):
    """As in its tutorial's chat server."""

    connections = 0

    async def connect(self) -> None:
        """Join the groups."""
        room = room_in(self.scope["query_string"])
        self.joined = [EVERYONE, *([f"room-{room}"] if room else [])]
        for group in self.joined:
            await self.channel_layer.group_add(group, self.channel_name)
        await self.accept()
        Consumer.connections += 1

    async def disconnect(self, code: int) -> None:
        """Leave them."""
        Consumer.connections -= 1
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Echo."""
        await self.send_json({"event": "echo", "data": content["data"]})

    async def news(self, event: dict[str, Any]) -> None:
        """A message of a group."""
        await self.send_json({"event": "news", "data": event["data"]})


class Channels:
    """Sends to the groups."""

    def __init__(self) -> None:
        self._layer = get_channel_layer()
        self.app = Consumer.as_asgi()

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self._layer.group_send(EVERYONE, {"type": "news", "data": data})

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self._layer.group_send(f"room-{room}", {"type": "news", "data": data})

    def connected(self) -> int:
        return Consumer.connections


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Channels()
    await serve_asgi(contestant.app, contestant, lifespan="off")


if __name__ == "__main__":
    run(main)
