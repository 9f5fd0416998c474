"""The command ``velocity-ws``: serves an application, and reaches its clients from a shell. Knows public names only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TypeVar

import click
import msgspec
import uvicorn.main

from velocity_ws import __version__
from velocity_ws.emitter import Emitter
from velocity_ws.errors import VelocityError
from velocity_ws.logs import printable
from velocity_ws.settings import Settings

__all__ = ["main"]

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that an engine, and then the nodes, have to answer a command."""
STARTUP_FAILURE = 3
"""The status that uvicorn itself ends with where the application does not start."""
URL = click.option("--url", help="The nodes' engine; by default WS_BACKPLANE_URL.")
NAME = click.option("--name", default="main", show_default=True, help="The brokers', as in Broker(name=...).")


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Realtime for Python web apps, on plain WebSockets. Settings come from WS_* variables and .env."""


@main.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, epilog="Further options are uvicorn's."
)
@click.argument("app")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--host", help="Address to listen on; by default WS_HOST.")
@click.option("--port", type=int, help="Port to listen on; by default WS_PORT.")
@click.option("--env-file", type=click.Path(exists=True, dir_okay=False), help="Variables, which go before .env.")
@click.pass_context
def run(
    context: click.Context, app: str, workers: int, host: str | None, port: int | None, env_file: str | None
) -> None:
    """Serve APP, such as 'main:app', with this package's protocol classes.

    Where there are several workers and WS_BACKPLANE_URL is not set, they reach each other's clients by an embedded
    engine (embedded://, which needs the extra of that name). SIGTERM and SIGINT drain, and end with status 0.
    """
    settings = _settings(env_file)
    host, port = host or settings.host, settings.port if port is None else port
    if workers > 1 and "backplane_url" not in settings.model_fields_set:
        os.environ["WS_BACKPLANE_URL"] = _embedded(app, port)
    options = {
        "ws": "velocity_ws.uvicorn:WebSocketProtocol",
        "http": "velocity_ws.uvicorn:HTTPProtocol",
        "host": host,
        "port": port,
        "workers": workers,
        "timeout-graceful-shutdown": math.ceil(settings.drain_timeout),
        **({"env-file": env_file} if env_file else {}),
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with _ending_well(workers):
        uvicorn.main.main([*arguments, *context.args, app], prog_name="velocity-ws run", standalone_mode=False)


@main.command()
@click.option("--room", "rooms", multiple=True, help="To the members of a room; may be repeated.")
@click.option("--user", help="To all clients of a user.")
@click.option("--client", "clients", multiple=True, help="To a client; may be repeated.")
@click.option("--event", required=True, help="Name of the event.")
@click.option("--data", default="null", help="JSON.", show_default=True)
@URL
@NAME
def send(
    rooms: tuple[str, ...],
    user: str | None,
    clients: tuple[str, ...],
    event: str,
    data: str,
    url: str | None,
    name: str,
) -> None:
    """Send a message to clients on all nodes: to everyone, or to rooms, a user, or clients."""
    if sum(map(bool, (rooms, user, clients))) > 1:
        raise click.UsageError("give --room, --user or --client, not several of them")
    try:
        content = json.loads(data)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--data") from None

    async def send_it(emitter: Emitter) -> None:
        if rooms:
            target = emitter.to_rooms(rooms)
        elif user:
            target = emitter.to_user(user)
        elif clients:
            target = emitter.to_clients(clients)
        else:
            target = emitter.to_all()
        await target.send(event, content)

    _with_emitter(url, name, send_it)


@main.command()
@URL
@NAME
def stats(url: str | None, name: str) -> None:
    """Print the figures of every node, and their sum, as JSON."""

    async def ask(emitter: Emitter) -> Any:
        return await emitter.cluster_stats()

    _print_json(_with_emitter(url, name, ask))


@main.command()
@click.argument("room")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@URL
@NAME
def members(room: str, as_json: bool, url: str | None, name: str) -> None:
    """Print who is in ROOM on all nodes: client, user, node, and since when."""

    async def ask(emitter: Emitter) -> Any:
        return await emitter.members(room)

    found = _with_emitter(url, name, ask)
    if as_json:
        _print_json({"members": list(found), "missing": found.missing})
    else:
        for member in found:
            since = datetime.fromtimestamp(member.since, UTC).isoformat(timespec="seconds")
            names = [printable(name) for name in (member.client_id, member.user or "-", member.node)]
            click.echo("\t".join([*names, since]))
        if found.missing:
            click.echo(f"did not answer: {', '.join(map(printable, found.missing))}", err=True)


def _settings(env_file: str | None) -> Settings:
    try:
        return Settings(_env_file=(".env", env_file)) if env_file else Settings()
    except VelocityError as error:
        raise click.ClickException(str(error)) from None


def _embedded(app: str, port: int) -> str:
    """The URL of an engine for the workers of that application at that port, and of no others."""
    own = port or f"pid{os.getpid()}"  # for port 0 there may be several
    url = f"embedded://{re.sub(r'[^A-Za-z0-9_-]', '-', app)[:30]}-{own}"
    try:
        Emitter(url)  # what is missing shows now, and not in every worker
    except VelocityError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"the workers reach each other's clients by WS_BACKPLANE_URL={url}", err=True)
    return url


@contextlib.contextmanager
def _ending_well(workers: int) -> Iterator[None]:
    """Have uvicorn end with status 0 after a signal, and only then."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(0)

    # Alone it drains, and then raises the signal once more, which would end the process as if it had not.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if workers == 1:
        yield
        return
    # With workers it returns, be it that it was told to or that they cannot start. What it was told shows here.
    told, tell = socket.socketpair()
    with told, tell:
        told.setblocking(False)
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
        try:
            numbers = told.recv(4096)
        except BlockingIOError:
            numbers = b""
    if not {signal.SIGTERM, signal.SIGINT} & set(numbers):
        raise SystemExit(STARTUP_FAILURE)


def _with_emitter(url: str | None, name: str, work: Callable[[Emitter], Awaitable[T]]) -> T:
    async def run_it() -> T:
        async with Emitter(url, name=name, timeout=PATIENCE) as emitter:
            return await work(emitter)

    try:
        return asyncio.run(run_it())
    except VelocityError as error:
        raise click.ClickException(printable(str(error))) from None


def _print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # JSON leaves some of what a terminal acts on as it is, and knows an escape for all of it.
    click.echo("".join([c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text]))
