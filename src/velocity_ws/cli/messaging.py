"""Messaging: ``velocity-ws send``, ``history``, ``members`` and ``stats``, from a shell. Knows no server."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from velocity_ws.backplane.urls import ALONE
from velocity_ws.broker.emitter import Emitter
from velocity_ws.cli.group import CommandError, main
from velocity_ws.errors import BackplaneUnavailable, VelocityError
from velocity_ws.logs import printable
from velocity_ws.settings import Settings

__all__ = ["history", "members", "send", "stats"]

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that an engine, and then the nodes, have to answer a command."""
NO_ENGINE = (
    "it needs the engine that the nodes share, and memory:// is none: give --url, or set WS_BACKPLANE_URL, as the "
    "nodes have it; what a process on its own does is in its broker.get_stats()"
)
URL = click.option("--url", help="The nodes' engine; by default WS_BACKPLANE_URL.")
NAME = click.option("--name", default="main", show_default=True, help="The brokers', as in Broker(name=...).")


@main.command()
@click.option("--room", "rooms", multiple=True, help="To the members of a room; may be repeated.")
@click.option("--user", help="To all clients of a user.")
@click.option("--client", "clients", multiple=True, help="To a client; may be repeated.")
@click.option("--event", required=True, help="Name of the event.")
@click.option("--data", default="null", help="JSON.", show_default=True)
@click.option("--dedupe", help="Names the message in a room with history, which takes it once in 5 minutes.")
@URL
@NAME
def send(
    rooms: tuple[str, ...],
    user: str | None,
    clients: tuple[str, ...],
    event: str,
    data: str,
    dedupe: str | None,
    url: str | None,
    name: str,
) -> None:
    """Send a message to clients on all nodes: to everyone, or to rooms, a user, or clients."""
    if user == "":  # of a variable that is not set, which must not send to everyone
        raise click.UsageError("--user is empty")
    if sum(map(bool, (rooms, user, clients))) > 1:
        raise click.UsageError("give --room, --user or --client, not several of them")
    try:
        content = json.loads(data)
    except ValueError as error:
        is_text = not data.lstrip().startswith(("{", "[", '"'))
        how = f"; a text has quotes of its own: --data {shlex.quote(json.dumps(data))}" if is_text else ""
        raise click.BadParameter(f"not JSON: {error}{how}", param_hint="--data") from None

    async def send_it(emitter: Emitter) -> None:
        if rooms:
            target = emitter.to_rooms(rooms)
        elif user:
            target = emitter.to_user(user)
        elif clients:
            target = emitter.to_clients(clients)
        else:
            target = emitter.to_all()
        await target.send(event, content, dedupe=dedupe)

    _with_emitter(url, name, send_it)


@main.command()
@click.argument("room")
@click.option("--since", help='Only what came after this position, the "at" of a message; the oldest first.')
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Messages at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@URL
@NAME
def history(room: str, since: str | None, limit: int, as_json: bool, url: str | None, name: str) -> None:
    """Print what ROOM remembers, the newest last: when, event, data, and position."""

    async def ask(emitter: Emitter) -> Any:
        if since is not None:
            return await emitter.history(room, since, limit)
        return (await emitter.history(room, limit=limit, reverse=True))[::-1]

    found = _with_emitter(url, name, ask)
    if as_json:
        _print_json([entry._asdict() for entry in found])
        return
    for entry in found:
        when = datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds")
        click.echo("\t".join([when, printable(entry.event), printable(json.dumps(entry.data)), entry.at]))


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


def _with_emitter(url: str | None, name: str, work: Callable[[Emitter], Awaitable[T]]) -> T:
    async def run_it() -> T:
        async with Emitter(url, name=name, timeout=PATIENCE) as emitter:
            return await work(emitter)

    connection = logging.getLogger("velocity_ws.cluster")
    level = connection.level
    connection.setLevel(logging.ERROR)  # that it is not reached, the error says
    try:
        if (url or Settings().backplane_url) == ALONE:
            raise click.ClickException(NO_ENGINE)
        return asyncio.run(run_it())
    except BackplaneUnavailable as error:
        doubt = "; whether it was done is not known" if error.outcome == "unknown" else ""
        raise click.ClickException(printable(error.reason + doubt)) from None
    except VelocityError as error:
        raise CommandError(error) from None
    finally:
        connection.setLevel(level)


def _print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # JSON leaves some of what a terminal acts on as it is, and knows an escape for all of it.
    click.echo("".join([c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text]))
