"""Settings: every ``WS_*`` variable, parsed and checked at start. The only reader of the environment."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from starlette.requests import HTTPConnection

from velocity_ws.backplane.urls import ALONE, check_url
from velocity_ws.errors import SettingsError
from velocity_ws.origins import OriginPattern
from velocity_ws.paths import EndpointPath

__all__ = ["Settings"]

LIKENESS = 0.8
"""Of a variable's name to a setting's, as difflib has it, from which on it is taken for a misspelled one."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~\w]+", re.ASCII)  # RFC 9110, section 5.6.2
_SIZE = re.compile(r"(\d+)\s*([a-z]*)", re.ASCII)


def _duration(value: object) -> object:
    """``10s``, ``1m30s``, ``500ms`` or a number of seconds, as seconds."""
    if isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            value = float(text)
        elif _DURATION.fullmatch(text):
            value = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        else:
            raise ValueError("not a duration; write 10s, 1m30s, 500ms or a number of seconds")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a duration; it must be finite")
    return value


def _size(value: object) -> object:
    """A number of bytes, or one with a unit (``64KiB``, ``1MiB``, ``1MB``), as bytes."""
    # Not pydantic's ByteSize, which looks at the beginning only: 64,000 is 64 to it, 64KiB/s is 64KiB, and 1.5 is 1. It
    # takes 1m as well, a million, which is a MiB in nginx, and 1bit, which is 0; its error does not say what to write.
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        if match is None or match[2] not in _BYTES:
            raise ValueError("not a size; write a number of bytes, or one with a unit: 64KiB, 1MiB")
        return int(match[1]) * _BYTES[match[2]]
    return value


def _comma_list(value: object) -> object:
    """A comma list as a tuple; empty entries are no entries."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Duration = Annotated[float, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]


class Settings(BaseSettings):
    """Everything that can be configured; a field is also the variable ``WS_`` plus its name in capitals.

    Code beats variables, variables beat ``.env`` in the working directory; keys of other programs in ``.env``
    are ignored, and an empty variable counts as not set. Durations take ``10s``, ``1m30s``, ``500ms`` or
    seconds; sizes take bytes, ``64KiB`` or ``1MiB``. An instance cannot be changed.

    Raises:
        SettingsError: a value cannot be used; the message names each variable and what is wrong.
    """

    model_config = SettingsConfigDict(
        env_prefix="WS_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=False,
    )

    host: str = Field("127.0.0.1", min_length=1)
    """Address that `Server` and ``velocity-ws run`` and ``dev`` listen on."""
    port: int = Field(6001, ge=0, le=65535)
    """Port that they listen on; 0 takes any free one. ``velocity-ws dev`` takes 8000 where it is not set."""
    path: str = "/ws"
    """Path of the endpoint, with and without a slash at its end; may have parameters, as in ``/ws/{tenant}``."""
    allowed_origins: CommaList = ()
    """Origins allowed beside the page's own: exact (``https://app.example.com``), ``https://*.example.com``, any port
    (``http://localhost:*``), ``null``, ``file://``, ``*``."""
    allow_missing_origin: bool = True
    """Whether a handshake without an Origin header (no browser sends such a one) is let in."""
    check_origin: Callable[[HTTPConnection], bool] | None = Field(default=None, exclude=True)
    """In code only: decides alone about a handshake's origin, in place of the two settings above."""
    subprotocols: CommaList = ()
    """Subprotocols, of which the first that a client offers is selected; where none is, a browser closes (1006)."""
    enable_compression: bool = True
    """Whether permessage-deflate is negotiated; applied by `Server` and the uvicorn classes."""
    handshake_timeout: Duration = Field(10.0, gt=0)
    """Seconds a handshake may take from the TCP accept until it is accepted, authentication included."""
    read_buffer_size: Size = Field(64 * 1024, gt=0)
    """Bytes of unprocessed messages one client may have waiting before its socket is no longer read."""
    write_buffer_size: Size = Field(64 * 1024, gt=0)
    """High-water mark of a connection's transport, in bytes; applied by `Server` and the uvicorn classes."""
    socket_send_buffer: Size = Field(0, ge=0, lt=2**31)
    """``SO_SNDBUF`` of a connection's socket in bytes, which count for no queue; 0 = the kernel's, which grows to
    megabytes. Applied by `Server` and the uvicorn classes."""
    max_message_size: Size = Field(512 * 1024, gt=0)
    """Largest inbound message in bytes, after decompression; beyond it the client is closed with 1009."""
    message_timeout: Duration = Field(60.0, gt=0)
    """Seconds from an inbound message's first byte to its last (then 1008); by `Server` and the uvicorn classes."""
    max_unfinished_size: Size = Field(64 * 1024 * 1024, gt=0)
    """Bytes of all clients' messages that have come in part; beyond, the client is closed that has sent
    nothing for longest (1013). The same."""
    max_connections: int = Field(10_000, ge=0)
    """Connections in this process, handshakes included; beyond it a handshake gets 503. 0 = no limit."""
    max_connections_per_ip: int = Field(0, ge=0)
    """The same for one client address; of IPv6 for one /64. 0 = no limit."""
    max_header_size: Size = Field(16 * 1024, gt=0)
    """Bytes of a request's line and headers; beyond: 431. Applied by `Server`; the HTTP class reads the variable."""
    max_header_count: int = Field(100, gt=0)
    """Headers of one request; applied like their size."""
    ping_interval: Duration = Field(30.0, ge=0)
    """Seconds between keepalive pings; 0 = none. Applied by `Server` and the uvicorn classes."""
    ping_timeout: Duration = Field(20.0, gt=0)
    """Seconds a keepalive ping may wait for its pong before the client counts as dead; applied like the interval."""
    rate_limit: float = Field(100.0, ge=0, allow_inf_nan=False)
    """Messages a second one client may send in the long run; 0 = no limit."""
    rate_burst: int = Field(200, ge=0)
    """Messages one client may send at once; 0 = one second's worth of the rate."""
    rate_bytes: Size = Field(4 * 1024 * 1024, ge=0)
    """Bytes a second one client may send in the long run, and four seconds' worth at once; 0 = no limit."""
    warn_message_size: Size = Field(1024 * 1024, ge=0)
    """Bytes of an outbound message beyond which it is logged, once for each event: clients have limits. 0 = never."""
    send_queue_size: Size = Field(1024 * 1024, gt=0)
    """Bytes that may wait for one client before the slow-client policy acts."""
    slow_client: Literal["disconnect", "drop"] = "disconnect"
    """What happens when a client's queue is full: close it (1013), or drop the newest message and tell it later."""
    drain_timeout: Duration = Field(10.0, ge=0)
    """Seconds that stopping gives handlers to finish, queues to be sent and clients to go."""
    restart_code: int = 1012
    """Code that clients are closed with when the server stops: 1012, or 1001 where they turn 1012 into 1002, as Qt
    does. Applied by `Server` and the uvicorn classes."""
    backplane_url: str = Field(ALONE, repr=False)  # it may hold a password
    """The engine by which several processes reach each other's clients; ``memory://`` is one process alone."""
    backplane_timeout: Duration = Field(1.0, gt=0)
    """Seconds after which a message to other nodes, or a question, ends: done, refused or of unknown outcome."""
    backplane_queue_size: Size = Field(8 * 1024 * 1024, gt=0)
    """Bytes that may wait for the engine; beyond it a message is refused."""
    node_lease: Duration = Field(10.0, gt=0)
    """Seconds unheard after which another node, and with it its clients, counts as gone."""

    _misspelled: dict[str, str] = PrivateAttr({})

    def __init__(self, **values: Any) -> None:
        known = type(self).model_fields
        unknown = [name for name in values if name not in known and not name.startswith("_")]
        if unknown:
            raise SettingsError({name: f"no such setting; there are {', '.join(known)}" for name in unknown})
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_problems(error)) from None
        except UnicodeDecodeError:
            raise SettingsError({".env": "it is not UTF-8 text"}) from None
        self._misspelled = _misspelled(type(self), values.get("_env_file", self.model_config["env_file"]))

    @property
    def misspelled(self) -> dict[str, str]:
        """Variables, and keys of ``.env``, that are no settings, and for each the one that may have been meant."""
        return self._misspelled

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Code, then variables, then ``.env``; a callable cannot come from text, so WS_CHECK_ORIGIN is no variable."""

        def textual(source: PydanticBaseSettingsSource) -> PydanticBaseSettingsSource:
            return _Without(settings_cls, source, "check_origin")

        return init_settings, textual(env_settings), textual(dotenv_settings)

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or "?" in value or "#" in value or any(c.isspace() for c in value):
            raise ValueError("not a path; it starts with / and has no ?, # or space, such as /ws")
        EndpointPath(value)
        return value.rstrip("/") or "/"

    @field_validator("allowed_origins")
    @classmethod
    def _allowed_origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            OriginPattern.parse(value)
        return values

    @field_validator("subprotocols")
    @classmethod
    def _subprotocols(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [value for value in values if not _TOKEN.fullmatch(value)]:
            raise ValueError(f"a subprotocol is letters, digits and !#$%&'*+-.^_`|~ alone, which {wrong[0]!r} is not")
        return values

    @field_validator("restart_code")
    @classmethod
    def _restart_code(cls, value: int) -> int:
        if value not in (1012, 1001):
            raise ValueError("neither 1012 (service restart) nor 1001 (going away)")
        return value

    @field_validator("backplane_url")
    @classmethod
    def _backplane_url(cls, value: str) -> str:
        return check_url(value)


class _Without(PydanticBaseSettingsSource):
    """A settings source with one field taken out."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource, field: str) -> None:
        super().__init__(settings_cls)
        self._source = source
        self._field = field

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in self._source().items() if key != self._field}


def _misspelled(settings_cls: type[BaseSettings], env_file: Any) -> dict[str, str]:
    names = {*EnvSettingsSource(settings_cls).env_vars, *DotEnvSettingsSource(settings_cls, env_file=env_file).env_vars}
    known = [name for name in settings_cls.model_fields if name != "check_origin"]
    found: dict[str, str] = {}
    for name in sorted(names):
        own = name.removeprefix("ws_")
        # Names that are like none of ours are another program's.
        if own != name and own not in known and (close := difflib.get_close_matches(own, known, 1, LIKENESS)):
            found[name.upper()] = f"WS_{close[0].upper()}"
    return found


def _problems(error: ValidationError) -> dict[str, str]:
    """For each bad variable, what is wrong; values are shown except where they may be secret."""
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        name = "WS_" + str(item["loc"][0]).upper() if item["loc"] else "WS_*"
        message = item["msg"].removeprefix("Value error, ")
        shown = "" if name == "WS_BACKPLANE_URL" else f" (it is {item['input']!r})"
        problems.setdefault(name, message + shown)
    return problems
