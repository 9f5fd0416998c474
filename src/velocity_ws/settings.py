"""Settings: every ``WS_*`` variable, parsed and checked at start. Nothing else reads one."""

from __future__ import annotations

import difflib
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
from velocity_ws.quantities import parse_duration, parse_size

__all__ = ["Settings"]

SHORTEST_KEY = 16
"""Characters of an API key."""
LIKENESS = 0.8
"""The similarity of a variable's name to a setting's (difflib's, 0 to 1) from which on it counts as misspelled."""
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~\w]+", re.ASCII)  # RFC 9110, section 5.6.2


def _comma_list(value: object) -> object:
    """Parse a comma list into a tuple, without empty entries."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]


class Settings(BaseSettings):
    """The settings of a broker; each is also the variable ``WS_`` and its name in capitals, such as ``WS_PORT``.

    Arguments take precedence over variables, and variables over ``.env`` in the working directory. An empty variable
    counts as not set; keys of other programs in ``.env`` are ignored. Durations are written ``10s``, ``1m30s``,
    ``500ms`` or as a number of seconds; sizes as a number of bytes, ``64KiB`` or ``1MiB``. An instance cannot be
    changed.

    Raises:
        SettingsError: a value cannot be used; the message names each variable and what is wrong with it.
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
    """Address that `Server`, ``velocity-ws run`` and ``velocity-ws dev`` listen on."""
    port: int = Field(6001, ge=0, le=65535)
    """Port that they listen on; 0 takes any free one. ``velocity-ws dev`` takes 8000 if it is not set."""
    path: str = "/ws"
    """Path of the endpoint; may have parameters, as in ``/ws/{tenant}``. A slash at its end makes no difference."""
    allowed_origins: CommaList = ()
    """Origins that pages may connect from, beside the server's own: exact (``https://app.example.com``), all subdomains
    (``https://*.example.com``), any port (``http://localhost:*``), ``null``, ``file://``, or ``*`` for all."""
    allow_missing_origin: bool = True
    """Whether a handshake without an Origin header is allowed; browsers always send one, other programs may not."""
    check_origin: Callable[[HTTPConnection], bool] | None = Field(default=None, exclude=True)
    """In code only: a function that decides whether a handshake's origin is allowed, in place of the two settings
    above."""
    api_keys: CommaList = Field((), repr=False)
    """Keys with which programs write streams over HTTP, and read all of them: 16 characters at least. Several, so that
    one can be replaced by another."""
    subprotocols: CommaList = ()
    """Subprotocols, of which the first that a client offers is selected. A browser closes (1006) if none of its offers
    is."""
    enable_compression: bool = True
    """Whether permessage-deflate is negotiated; applied by `Server` and the uvicorn classes."""
    handshake_timeout: Duration = Field(10.0, gt=0)
    """Seconds from the TCP accept until the WebSocket is accepted, authentication included; then the handshake is
    refused."""
    expiry_grace: Duration = Field(10.0, ge=0)
    """Seconds between the end of a login and the close of its client (4401), in which the login can be renewed."""
    read_buffer_size: Size = Field(64 * 1024, gt=0)
    """Bytes of one client's messages that may wait to be handled before its socket is no longer read."""
    write_buffer_size: Size = Field(64 * 1024, gt=0)
    """Bytes that a connection's transport may hold before messages wait in the send queue; applied by `Server` and the
    uvicorn classes."""
    socket_send_buffer: Size = Field(0, ge=0, lt=2**31)
    """Bytes that the kernel holds for one connection (``SO_SNDBUF``), beside the send queue; 0 = as the kernel decides,
    up to megabytes. Applied by `Server` and the uvicorn classes."""
    max_message_size: Size = Field(512 * 1024, gt=0)
    """Bytes of the largest inbound message, after decompression; a larger one closes the client (1009)."""
    message_timeout: Duration = Field(60.0, gt=0)
    """Seconds from an inbound message's first byte to its last; a slower one closes the client (1008). Applied by
    `Server` and the uvicorn classes."""
    max_unfinished_size: Size = Field(64 * 1024 * 1024, gt=0)
    """Bytes of all clients' messages that have come in part; beyond it, the client that has sent nothing for longest is
    closed (1013). Applied by `Server` and the uvicorn classes."""
    max_connections: int = Field(10_000, ge=0)
    """Connections in this process, handshakes included; a further one is refused with 503. 0 = no limit."""
    max_connections_per_ip: int = Field(0, ge=0)
    """Connections from one client address, for IPv6 from one /64; a further one is refused with 503. 0 = no limit."""
    max_header_size: Size = Field(16 * 1024, gt=0)
    """Bytes of a request's line and headers; a longer one is answered 431. Applied by `Server`; under the ``uvicorn``
    command the HTTP class reads the variable alone."""
    max_header_count: int = Field(100, gt=0)
    """Headers of one request; one with more is answered 431. Applied like their size."""
    ping_interval: Duration = Field(30.0, ge=0)
    """Seconds between keepalive pings; 0 = no pings. Applied by `Server` and the uvicorn classes."""
    ping_timeout: Duration = Field(20.0, gt=0)
    """Seconds that a keepalive ping waits for its pong before the client is closed (1011). Applied by `Server` and the
    uvicorn classes."""
    rate_limit: float = Field(100.0, ge=0, allow_inf_nan=False)
    """Messages a second that one client may send in the long run; others are refused, and a client that keeps sending
    more is closed (1008). 0 = no limit."""
    rate_burst: int = Field(200, ge=0)
    """Messages that one client may send at once; 0 = one second's worth of the rate."""
    rate_bytes: Size = Field(4 * 1024 * 1024, ge=0)
    """Bytes a second that one client may send in the long run, and four seconds' worth at once; 0 = no limit."""
    max_rooms_per_client: int = Field(100, ge=0)
    """Rooms that one client may be in by joining them itself, where a kind of rooms lets it; 0 = no limit."""
    warn_message_size: Size = Field(1024 * 1024, ge=0)
    """Bytes of an outbound message beyond which a warning is logged, once for each event: clients have limits of their
    own. 0 = no warning."""
    send_queue_size: Size = Field(1024 * 1024, gt=0)
    """Bytes of messages that may wait for one client; beyond it, ``slow_client`` applies."""
    slow_client: Literal["disconnect", "drop"] = "disconnect"
    """What happens if a client's queue is full: ``disconnect`` closes the client (1013), ``drop`` drops the new message
    and later sends a ``gap``."""
    presence_max_users: int = Field(1000, ge=0)
    """Users in a room with presence beyond which its members are told how many there are, and not who; 0 = no limit."""
    history_ring: Size = Field(16 * 1024 * 1024, gt=0)
    """Bytes of the newest messages of rooms with history that this process keeps ready, so that many clients who come
    back at once cost the engine few reads; and as many of what streams have said."""
    recovery_limit: int = Field(1000, ge=1)
    """Messages of a room that one client may get at once when it comes back; one that missed more is told so."""
    stream_max_size: Size = Field(16 * 1024 * 1024, gt=0)
    """Bytes that a stream may have; a source that says more is cancelled, and the stream ends with ``error``."""
    stream_ttl: Duration = Field(3600.0, ge=1)
    """Seconds for which what a stream has said can be read after its end."""
    stream_interval: Duration = Field(0.02, ge=0, le=10)
    """Seconds in which what a stream says is gathered, to leave as one message; 0 = one turn of the event loop."""
    drain_timeout: Duration = Field(10.0, ge=0)
    """Seconds that a stop gives handlers to finish, queues to be sent and clients to leave; 0 = no wait."""
    restart_code: int = 1012
    """Close code for clients of a stopping server: 1012, or 1001 for clients that turn 1012 into 1002, as Qt does.
    Applied by `Server` and the uvicorn classes."""
    backplane_url: str = Field(ALONE, repr=False)  # it may hold a password
    """URL of the engine by which several processes reach each other's clients; ``memory://`` is one process alone."""
    backplane_timeout: Duration = Field(1.0, gt=0)
    """Seconds that a message or a request to other nodes may take; one that is not confirmed by then has failed."""
    backplane_queue_size: Size = Field(8 * 1024 * 1024, gt=0)
    """Bytes of messages that may wait for the engine; a further one is refused with `BackplaneUnavailable`."""
    node_lease: Duration = Field(10.0, gt=0)
    """Seconds without a sign of another node after which the node and its clients count as gone."""

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
        """The variables and keys of ``.env`` that look like misspelled settings, each with the likely right name."""
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
        """Return pydantic's sources in order: arguments, variables, ``.env``. WS_CHECK_ORIGIN is no variable, as text
        cannot hold a function."""

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

    @field_validator("api_keys")
    @classmethod
    def _api_keys(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(value) < SHORTEST_KEY or not value.isascii() or not value.isprintable() for value in values):
            raise ValueError(f"a key has {SHORTEST_KEY} printable characters of ASCII at least")
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
        # A name that resembles none of the settings belongs to another program.
        if own != name and own not in known and (close := difflib.get_close_matches(own, known, 1, LIKENESS)):
            found[name.upper()] = f"WS_{close[0].upper()}"
    return found


def _problems(error: ValidationError) -> dict[str, str]:
    """Say what is wrong with each bad variable, and show its value unless it may be secret."""
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        name = "WS_" + str(item["loc"][0]).upper() if item["loc"] else "WS_*"
        message = item["msg"].removeprefix("Value error, ")
        shown = "" if name in ("WS_BACKPLANE_URL", "WS_API_KEYS") else f" (it is {item['input']!r})"
        problems.setdefault(name, message + shown)
    return problems
