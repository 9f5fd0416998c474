"""Notifications from ordinary HTTP code: from an ``async def`` route, from a ``def`` one, and from a thread.

Start it with ``python -m examples.notifications``, connect to ``ws://127.0.0.1:8000/ws?token=token-of-ada`` (a program
can send the header ``Authorization: Bearer token-of-ada`` instead), and use the routes at http://127.0.0.1:8000/docs.
"""

import threading

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from velocity_ws import Broker, Client, Reject, Stats

TOKENS = {"token-of-ada": "ada", "token-of-bob": "bob"}  # stands for your sessions or your identity provider

app = FastAPI(title="Notifications")
broker = Broker()
broker.attach(app)


class Notification(BaseModel):
    title: str
    body: str = ""


def room_of(user: str) -> str:
    """Every tab and device of a user is in one room, so it takes no list of who is connected."""
    return f"user:{user}"


@broker.authenticate
async def find_user(request: HTTPConnection) -> str:
    # A browser's WebSocket cannot set headers, so its token is in the URL. URLs end up in logs: make it short-lived.
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = request.query_params.get("token", "")
    if token not in TOKENS:
        raise Reject("unknown token", code=4401)
    return TOKENS[token]


@broker.on_connect
async def join_own_room(client: Client) -> None:
    await broker.join_room(client.id, room_of(client.user))


# The routes below would be guarded like the rest of an API; each says how many clients it reached.


@app.post("/users/{user}/notifications")
async def notify_user(user: str, notification: Notification) -> int:
    return await broker.to_room(room_of(user)).send("notification", notification)


@app.post("/notifications")
def notify_everyone(notification: Notification) -> int:
    # A `def` route runs in a thread, where nothing can be awaited: broker.sync waits instead.
    return broker.sync.broadcast("notification", notification)


@app.post("/users/{user}/reports", status_code=202)
def start_report(user: str) -> None:
    threading.Thread(target=write_report, args=(user,), name="report").start()


def write_report(user: str) -> None:
    rows = sum(range(1_000_000))  # long work that knows nothing of asyncio
    broker.sync.to_room(room_of(user)).send("notification", Notification(title="Report ready", body=f"{rows} rows"))


@app.get("/stats")
async def stats() -> Stats:
    return broker.get_stats()


if __name__ == "__main__":
    uvicorn.run(app, ws="velocity_ws.uvicorn:WebSocketProtocol", http="velocity_ws.uvicorn:HTTPProtocol")
