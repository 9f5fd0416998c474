# examples/minimal.py: velocity-ws dev examples/minimal.py (needs fastapi)
from fastapi import FastAPI
from pydantic import BaseModel

from velocity_ws import Broker, Client

app = FastAPI()
broker = Broker()
broker.attach(app)


class ChatMessage(BaseModel):
    author: str
    text: str


@broker.on_connect
async def enter(client: Client) -> None:
    room = client.request.query_params.get("room", "lobby")
    await broker.join_room(client.id, room)


@broker.on("chat_message")
async def chat(client: Client, data: ChatMessage) -> None:
    await broker.to_rooms(client.rooms).send("chat_message", data)


@app.post("/announce")
async def announce(text: str) -> int:
    return await broker.broadcast("announcement", text)
