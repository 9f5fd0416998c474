"""Two ways to know who connects: a token in the URL, or a first message, which logs in, renews that, and logs out.

Start it with ``python -m examples.auth``, then connect to one of

- ``ws://127.0.0.1:8000/ws?token=token-of-ada``: nobody gets in without a good token. The URL is seen by proxies and
  their logs, so the token should be short-lived.
- ``ws://127.0.0.1:8000/ws/login``: anybody gets in, and has a few seconds to send
  ``{"event": "auth", "id": 1, "data": {"token": "token-of-ada"}}``. No token in a URL, but strangers hold connections.
  The login ends after a while, unless the client sends ``refresh`` with a token; ``log_out`` ends it at once.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from velocity_ws import Accept, Broker, Client, ClientError, Message, Reject

TOKENS = {"token-of-ada": "ada", "token-of-bob": "bob"}  # stands for your sessions or your identity provider
LOGIN_SECONDS = 5.0
SESSION_LENGTH = timedelta(minutes=15)

app = FastAPI(title="Authentication")

# --- a token in the URL

# Two endpoints are two brokers; their names keep them apart where an engine connects several workers.
by_url = Broker(name="by-url")
by_url.attach(app)


@by_url.authenticate
async def find_user(request: HTTPConnection) -> str:
    user = TOKENS.get(request.query_params.get("token", ""))
    if user is None:
        # A browser can read a close code, but not the HTTP status of a refused handshake.
        raise Reject("unknown token", code=4401)
    return user


@by_url.on("whoami")
async def whoami(client: Client) -> str:
    return str(client.user)


# --- a first message

by_message = Broker(name="by-message")
by_message.attach(app, "/ws/login")
by_message.on("whoami")(whoami)


class Login(BaseModel):
    token: str


def check(login: Login) -> Accept:
    """Whose token it is, and until when."""
    user = TOKENS.get(login.token)
    if user is None:
        raise ClientError("UNAUTHORIZED", "unknown token")
    return Accept(user, expires_at=datetime.now(UTC) + SESSION_LENGTH)


@by_message.on_connect
async def start_timer(client: Client) -> None:
    # Not awaited here: no message is handled before on_connect has finished. The client keeps the task alive.
    client.set_data("timer", asyncio.create_task(hang_up(client)))


async def hang_up(client: Client) -> None:
    await asyncio.sleep(LOGIN_SECONDS)
    await client.disconnect(4401, "not authenticated in time")


@by_message.on_disconnect
async def stop_timer(client: Client) -> None:
    timer: asyncio.Task[None] | None = client.get_data("timer")
    if timer is not None:
        timer.cancel()


@by_message.on_message
async def require_login(client: Client, message: Message) -> None:
    if client.user is None and message.event != "auth":
        raise ClientError("UNAUTHORIZED", "send 'auth' with a token first")


@by_message.on("auth")
async def log_in(client: Client, data: Login) -> str:
    await client.set_user(check(data))  # in, or over from another user
    await stop_timer(client)
    # broadcast() reaches strangers too, so what is meant for users goes to this room.
    await by_message.join_room(client.id, "users")
    return str(client.user)


@by_message.refresh
async def renew(data: Login) -> Accept:
    return check(data)  # another user's token is refused


@by_message.on("log_out")
async def log_out(client: Client) -> None:
    await client.set_user(None)
    await by_message.leave_room(client.id, "users")
    await start_timer(client)


if __name__ == "__main__":
    uvicorn.run(app, ws="velocity_ws.uvicorn:WebSocketProtocol", http="velocity_ws.uvicorn:HTTPProtocol")
