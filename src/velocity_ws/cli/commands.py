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
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TypeVar

import click
import msgspec
from click.core import ParameterSource
from dotenv import load_dotenv
from uvicorn.config import Config
from uvicorn.main import main as uvicorn_command
from uvicorn.supervisors import Multiprocess

from velocity_ws import __version__
from velocity_ws.backplane import create_backplane
from velocity_ws.broker.emitter import Emitter
from velocity_ws.cli.discovery import NotFound, find
from velocity_ws.errors import SettingsError, VelocityError
from velocity_ws.logs import printable
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.late_connections import PARENT_CLOSES

__all__ = ["main"]

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that an engine, and then the nodes, have to answer a command."""
CANCEL_GRACE = 0.2
"""Seconds that tasks have to end once the server has stopped."""
STARTUP_FAILURE = 3
"""The status that uvicorn itself ends with where the application does not start."""
URL = click.option("--url", help="The nodes' engine; by default WS_BACKPLANE_URL.")
NAME = click.option("--name", default="main", show_default=True, help="The brokers', as in Broker(name=...).")


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Realtime for Python web apps, on plain WebSockets. Settings come from WS_* variables and .env."""


class _Workers(Multiprocess):
    """uvicorn's parent of several workers, which listens no longer than they do."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        setattr(config, PARENT_CLOSES, True)
        super().__init__(config, sockets)

    def terminate_all(self) -> None:
        """Stop: from then on connections are refused, and what balances the load tries another server."""
        for sock in self.sockets:
            sock.close()
        super().terminate_all()


class _Serving(click.Command):
    """A command that takes uvicorn's options beside its own."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        known = {"--workers", *(text for param in self.params for text in param.opts)}
        others = [param for param in uvicorn_command.params if isinstance(param, click.Option) and param.expose_value]
        self.params += [param for param in others if not known.intersection(param.opts)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--`` may stand before uvicorn's options."""
        return super().parse_args(ctx, [text for text in args if text != "--"])


class _Failure(click.ClickException):
    """An error of ours, in lines of its own making only: what others chose is escaped."""

    def __init__(self, error: VelocityError) -> None:
        if isinstance(error, SettingsError):
            problems = [f"\n  {name}: {printable(problem)}" for name, problem in error.problems.items()]
            super().__init__("unusable settings:" + "".join(problems))
        else:
            super().__init__(printable(str(error)))


class _NoApplication(click.ClickException):
    exit_code = STARTUP_FAILURE


def _serving(function: Callable[..., None]) -> click.Command:
    """A command with the options that all have."""
    for decorate in (
        click.option("--env-file", type=click.Path(exists=True, dir_okay=False), help="Variables, before .env."),
        click.option("--port", type=int, allow_from_autoenv=False, help="Port to listen on; by default WS_PORT."),
        click.option("--host", allow_from_autoenv=False, help="Address to listen on; by default WS_HOST."),
        click.option("--app", "name", metavar="NAME", help="What the application is called in its module."),
        click.argument("target", metavar="[PATH | MODULE:NAME]", required=False),
        click.pass_context,
    ):
        function = decorate(function)
    return main.command(cls=_Serving, context_settings={"auto_envvar_prefix": "UVICORN"})(function)


@_serving
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def run(context: click.Context, **options: Any) -> None:
    """Serve an application with this package's protocol classes.

    PATH is a file or a package with a FastAPI application, which is found as `fastapi run` does: app, api, or the
    first. Without it, the entrypoint of [tool.fastapi] in pyproject.toml, or main.py, app.py, api.py, here or in app/.

    Where there are several workers and WS_BACKPLANE_URL is not set, they reach each other's clients by an embedded
    engine (embedded://, which needs the extra of that name). SIGTERM and SIGINT drain, and end with status 0.
    """
    _serve(context, **options)


@_serving
@click.option("--reload/--no-reload", default=True, show_default=True, help="Start anew where a file changes.")
def dev(context: click.Context, **options: Any) -> None:
    """Serve an application while it is being written: as `run`, and starts anew where a file changes.

    It listens on port 8000, as `fastapi dev` does, unless WS_PORT is set.
    """
    os.environ.setdefault("FASTAPI_ENV", "development")  # as `fastapi dev` says
    _serve(context, default_port=8000, workers=1, **options)


def _serve(
    context: click.Context,
    *,
    target: str | None,
    name: str | None,
    workers: int,
    host: str | None,
    port: int | None,
    env_file: str | None,
    default_port: int | None = None,
    **options: Any,
) -> None:
    settings = _settings(env_file)
    if port is None:
        is_set = default_port is None or "port" in settings.model_fields_set
        port = settings.port if is_set else default_port
    ours = {
        "ws": "velocity_ws.uvicorn:WebSocketProtocol",
        "http": "velocity_ws.uvicorn:HTTPProtocol",
        "timeout_graceful_shutdown": math.ceil(settings.drain_timeout),
    }
    if options.get("ssl_certfile") or options.get("ssl_keyfile"):
        ours["loop"] = "velocity_ws.uvicorn:new_event_loop"
    by_default = ParameterSource.DEFAULT
    options |= {key: value for key, value in ours.items() if context.get_parameter_source(key) is by_default}
    with _ending_well(workers):
        if env_file is not None:
            load_dotenv(env_file)  # as uvicorn does, after the application has been looked for
        app = _find(target, name)
        _check_engine(settings.backplane_url)
        if workers > 1 and "backplane_url" not in settings.model_fields_set:
            has_port = options.get("uds") is None and options.get("fd") is None
            os.environ["WS_BACKPLANE_URL"] = _embedded(app, port if has_port else None)
        serve = uvicorn_command.callback
        assert serve is not None  # noqa: S101 - a command has one
        vars(sys.modules["uvicorn.main"])["Multiprocess"] = _Workers  # this process is all ours
        serve(app=app, host=host or settings.host, port=port, workers=workers, env_file=env_file, **options)


def _find(target: str | None, name: str | None) -> str:
    try:
        app = find(target, name)
    except NotFound as error:
        raise _NoApplication(str(error)) from None
    if app != target:
        click.echo(f"found the application {app}", err=True)
    return app


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
    if user == "":  # of a variable that is not set; nobody means everyone by it
        raise click.UsageError("--user is empty")
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
        raise _Failure(error) from None


def _check_engine(url: str) -> None:
    """See that what the engine needs is installed, or every worker would say so, and be started again for ever."""
    try:
        create_backplane(url)
    except VelocityError as error:
        raise _Failure(error) from None


def _embedded(app: str, port: int | None) -> str:
    """The URL of an engine for the workers of that application at that port, and of no others."""
    own = port or f"pid{os.getpid()}"  # for port 0 there may be several servers, as on Unix sockets
    url = f"embedded://{re.sub(r'[^A-Za-z0-9_-]', '-', app)[:30]}-{own}"
    try:
        Emitter(url)  # what is missing shows now, and not in every worker
    except VelocityError as error:
        raise _Failure(error) from None
    click.echo(f"the workers reach each other's clients by WS_BACKPLANE_URL={url}", err=True)
    return url


@contextlib.contextmanager
def _ending_well(workers: int) -> Iterator[None]:
    """Have uvicorn end with status 0 after a signal, and only then."""
    # ``asyncio.Runner`` waits for what it cancels then, and for a hook that ignores that it would wait for ever.
    last = threading.Timer(CANCEL_GRACE, _leave, (0,))
    last.daemon = True

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not last.ident:
            last.start()
        raise SystemExit(0)

    # Alone it drains, and then raises the signal once more, which would end the process as if it had not.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if workers == 1:
        try:
            yield
        finally:
            last.cancel()
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
            last.cancel()
        try:
            numbers = told.recv(4096)
        except BlockingIOError:
            numbers = b""
    if not {signal.SIGTERM, signal.SIGINT} & set(numbers):
        raise SystemExit(STARTUP_FAILURE)


def _leave(status: int) -> None:
    click.echo("a task goes on after it was cancelled, and is left behind", err=True)
    sys.stdout.flush()
    os._exit(status)


def _with_emitter(url: str | None, name: str, work: Callable[[Emitter], Awaitable[T]]) -> T:
    async def run_it() -> T:
        async with Emitter(url, name=name, timeout=PATIENCE) as emitter:
            return await work(emitter)

    try:
        return asyncio.run(run_it())
    except VelocityError as error:
        raise _Failure(error) from None


def _print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # JSON leaves some of what a terminal acts on as it is, and knows an escape for all of it.
    click.echo("".join([c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text]))
