"""Serving: ``velocity-ws run`` and ``dev``, which start uvicorn with this package's classes. Knows no client."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource
from dotenv import load_dotenv
from uvicorn.main import main as uvicorn_command

from velocity_ws.backplane import create_backplane
from velocity_ws.broker.emitter import Emitter
from velocity_ws.cli.discovery import ApplicationNotFound, find
from velocity_ws.cli.group import CommandError, main
from velocity_ws.cli.supervision import STARTUP_FAILURE, WorkerSupervisor, exit_status
from velocity_ws.errors import VelocityError
from velocity_ws.settings import Settings

__all__ = ["dev", "run"]

PORT = click.IntRange(0, 65535)


class _ServeCommand(click.Command):
    """A command that takes uvicorn's options beside its own."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        known = {"--workers", *(text for param in self.params for text in param.opts)}
        others = [param for param in uvicorn_command.params if isinstance(param, click.Option) and param.expose_value]
        self.params += [param for param in others if not known.intersection(param.opts)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--`` may stand before uvicorn's options."""
        return super().parse_args(ctx, [text for text in args if text != "--"])


class _NothingToServe(click.ClickException):
    """There is no application, which ends with the status of one that does not start."""

    exit_code = STARTUP_FAILURE


def _serve_command(function: Callable[..., None]) -> click.Command:
    """A command with the options that all have."""
    for decorate in (
        click.option("--env-file", type=click.Path(exists=True, dir_okay=False), help="Variables, before .env."),
        click.option("--port", type=PORT, allow_from_autoenv=False, help="Port to listen on; by default WS_PORT."),
        click.option("--host", allow_from_autoenv=False, help="Address to listen on; by default WS_HOST."),
        click.option("--app", "name", metavar="NAME", help="What the application is called in its module."),
        click.argument("target", metavar="[PATH | MODULE:NAME]", required=False),
        click.pass_context,
    ):
        function = decorate(function)
    return main.command(cls=_ServeCommand, context_settings={"auto_envvar_prefix": "UVICORN"})(function)


@_serve_command
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def run(context: click.Context, **options: Any) -> None:
    """Serve an application with this package's protocol classes.

    PATH is a file or a package with a FastAPI application, which is found as `fastapi run` does: app, api, or the
    first. Without it, the entrypoint of [tool.fastapi] in pyproject.toml, or main.py, app.py, api.py, here or in app/.

    Where there are several workers and WS_BACKPLANE_URL is not set, they reach each other's clients by an embedded
    engine (embedded://, which needs the extra of that name). SIGTERM and SIGINT drain, and end with status 0.
    """
    _serve(context, **options)


@_serve_command
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
    with exit_status(workers):
        if env_file is not None:
            load_dotenv(env_file)  # as uvicorn does, after the application has been looked for
        app = _find(target, name)
        _check_engine(settings.backplane_url)
        if workers > 1 and "backplane_url" not in settings.model_fields_set:
            has_port = options.get("uds") is None and options.get("fd") is None
            os.environ["WS_BACKPLANE_URL"] = _embedded(app, port if has_port else None)
        serve = uvicorn_command.callback
        assert serve is not None  # noqa: S101 - a command has one
        vars(sys.modules["uvicorn.main"])["Multiprocess"] = WorkerSupervisor  # this process is all ours
        serve(app=app, host=host or settings.host, port=port, workers=workers, env_file=env_file, **options)


def _find(target: str | None, name: str | None) -> str:
    try:
        app = find(target, name)
    except ApplicationNotFound as error:
        raise _NothingToServe(str(error)) from None
    if app != target:
        click.echo(f"found the application {app}", err=True)
    return app


def _settings(env_file: str | None) -> Settings:
    try:
        return Settings(_env_file=(".env", env_file)) if env_file else Settings()
    except VelocityError as error:
        raise CommandError(error) from None


def _check_engine(url: str) -> None:
    """Fail now where the engine needs what is not installed: every worker would, and be started again for ever."""
    try:
        create_backplane(url)
    except VelocityError as error:
        raise CommandError(error) from None


def _embedded(app: str, port: int | None) -> str:
    """The URL of an engine for the workers of one application at one port, and for no others.

    Args:
        app: import string of the application.
        port: ``None`` or 0 where it does not tell servers apart.
    """
    own = port or f"pid{os.getpid()}"  # for port 0 there may be several servers, as on Unix sockets
    url = f"embedded://{re.sub(r'[^A-Za-z0-9_-]', '-', app)[:30]}-{own}"
    try:
        Emitter(url)  # what is missing shows now, and not in every worker
    except VelocityError as error:
        raise CommandError(error) from None
    click.echo(f"the workers reach each other's clients by WS_BACKPLANE_URL={url}", err=True)
    return url
