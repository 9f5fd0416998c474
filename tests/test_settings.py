"""Settings: every variable, good and bad, from the environment and from a `.env` file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from velocity_ws import Settings, SettingsError, VelocityError

ROOT = Path(__file__).parent.parent
LONG_KEY = "0123456789abcdef~[]"

DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 6001,
    "path": "/ws",
    "allowed_origins": (),
    "allow_missing_origin": True,
    "check_origin": None,
    "api_keys": (),
    "subprotocols": (),
    "enable_compression": True,
    "handshake_timeout": 10.0,
    "expiry_grace": 10.0,
    "read_buffer_size": 64 * 1024,
    "write_buffer_size": 64 * 1024,
    "socket_send_buffer": 0,
    "max_message_size": 512 * 1024,
    "message_timeout": 60.0,
    "max_unfinished_size": 64 * 1024 * 1024,
    "max_connections": 10_000,
    "max_connections_per_ip": 0,
    "max_header_size": 16384,
    "max_header_count": 100,
    "ping_interval": 30.0,
    "ping_timeout": 20.0,
    "rate_limit": 100.0,
    "rate_burst": 200,
    "rate_bytes": 4 * 1024 * 1024,
    "max_rooms_per_client": 100,
    "warn_message_size": 1024 * 1024,
    "send_queue_size": 1024 * 1024,
    "slow_client": "disconnect",
    "presence_max_users": 1000,
    "history_ring": 16 * 1024 * 1024,
    "recovery_limit": 1000,
    "stream_max_size": 16 * 1024 * 1024,
    "stream_ttl": 3600.0,
    "stream_interval": 0.02,
    "drain_timeout": 10.0,
    "backplane_url": "memory://",
    "backplane_timeout": 1.0,
    "backplane_queue_size": 8 * 1024 * 1024,
    "restart_code": 1012,
    "node_lease": 10.0,
}
"""What the documentation promises, written out once more, so that a changed default is noticed."""

DURATIONS: list[tuple[str, float]] = [
    ("10s", 10.0),
    ("1m30s", 90.0),
    ("500ms", 0.5),
    ("2.5", 2.5),
    ("2.5s", 2.5),
    ("1h", 3600.0),
    ("1d", 86400.0),
    ("1h1m1s1ms", 3661.001),
    ("15", 15.0),
    (" 10S ", 10.0),
]
BAD_DURATIONS = ["ten", "10 parsecs", "s", "10s!", "-1", "-1s", "nan", "inf", "1e3", "٣s", "9" * 400]
SIZES: list[tuple[str, int]] = [
    ("1", 1),
    ("65536", 65536),
    ("64KiB", 65536),
    ("64kib", 65536),
    (" 64 KIB ", 65536),
    ("1MiB", 1024**2),
    ("1 MiB", 1024**2),
    ("1GiB", 1024**3),
    ("1MB", 1_000_000),
    ("1 MB", 1_000_000),
    ("1mb", 1_000_000),
    ("5kB", 5_000),
    ("2GB", 2_000_000_000),
    ("77B", 77),
]
BAD_SIZES = [
    *("0", "-1", "big", "1.5MiB", "1TiB", "KiB", "0x10", "1e3", "1 M iB", "٣", "9" * 5000),
    *("64,000", "1.000.000", "64KiB/s", "1m", "1bit"),  # which pydantic's ByteSize reads, as something else
]
TRUE = ["true", "TRUE", "1", "yes", "on"]
FALSE = ["false", "False", "0", "no", "off"]
BAD_BOOLS = ["maybe", "2", "-1"]
ORIGINS: list[tuple[str, tuple[str, ...]]] = [
    ("https://a.example", ("https://a.example",)),
    ("https://a.example,http://b.example:8080", ("https://a.example", "http://b.example:8080")),
    (" https://a.example , , https://*.b.example ,", ("https://a.example", "https://*.b.example")),
    ("null, file://,http://localhost:*", ("null", "file://", "http://localhost:*")),
    ("*", ("*",)),
    (",", ()),
]
BAD_ORIGINS = [
    "a.example",
    "file:///",
    "https://a.example/",
    "https://a.example/path",
    "https://a.example,nonsense",
    "https://*",
    "https://a.*.example",
    "https://u@a.example",
    "https://a.example:0",
    "https://a.example:65536",
    '["https://a.example"]',
]
URLS = [
    "memory://",
    "memory://one-name",
    "embedded://",
    "embedded://shop_2?prefix=shop",
    "redis://localhost",
    "redis://:s3cret@cache.internal:6379/2",
    "rediss://user:s3cret@cache.internal:6380?ssl_ca_certs=/etc/ca.pem&prefix=shop",
    "valkey://[::1]:6379",
    "valkeys://cache.internal",
    "unix:///run/valkey.sock?db=1",
    "nats://s3cret@localhost:4222",
    "nats://user:s3cret@a:4222,b:4222,c",
    "nats://a:4222,nats://b:4222?prefix=a-b_2",
    "tls://a.internal,b.internal",
]
BAD_URLS = [
    "nonsense",
    "redis",
    "redis:localhost",
    "REDIS://localhost",
    "://",
    "memory-of-an-elephant://",
    "amqp://localhost",
    "memory://two words",
    "memory://a/b",
    "embedded://../secrets",
    "redis://",
    "redis:///0",
    "redis://user:s3cret@",
    "redis://localhost:port",
    "redis://localhost:65536",
    "redis://[::1",
    "unix://",
    "nats://",
    "nats://,",
    "nats://a,:4222",
    "nats://a:4222,b:x",
    "nats://a,redis://b",
    "redis://localhost?prefix=",
    "redis://localhost?prefix=a.b",
    "redis://localhost?prefix=" + "a" * 51,
]
COUNTS: list[tuple[str, int]] = [("0", 0), ("1", 1), ("50000", 50_000)]
BAD_COUNTS = ["-1", "many", "1.5", "9" * 5000]

GOOD: dict[str, list[tuple[str, Any]]] = {
    "host": [("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("example.internal", "example.internal")],
    "port": [("0", 0), ("1", 1), ("65535", 65535)],
    "path": [("/", "/"), ("//", "/"), ("/realtime", "/realtime"), ("/a/b/", "/a/b"), ("/a///", "/a"), ("/ä", "/ä")],
    "allowed_origins": ORIGINS,
    "allow_missing_origin": [*((text, True) for text in TRUE), *((text, False) for text in FALSE)],
    "api_keys": [("k" * 16, ("k" * 16,)), (f" {'a b' * 6}, ,{'!' * 40},", ("a b" * 6, "!" * 40)), (",", ())],
    "subprotocols": [("bearer", ("bearer",)), (" v2.chat , , v1.chat,", ("v2.chat", "v1.chat")), (",", ())],
    "enable_compression": [*((text, True) for text in TRUE), *((text, False) for text in FALSE)],
    "handshake_timeout": DURATIONS,
    "expiry_grace": [*DURATIONS, ("0", 0.0)],
    "read_buffer_size": SIZES,
    "write_buffer_size": SIZES,
    "socket_send_buffer": [*SIZES, ("0", 0)],
    "max_message_size": SIZES,
    "message_timeout": DURATIONS,
    "max_unfinished_size": SIZES,
    "max_connections": COUNTS,
    "max_connections_per_ip": COUNTS,
    "max_header_size": SIZES,
    "max_header_count": COUNTS[1:],
    "ping_interval": [*DURATIONS, ("0", 0.0), ("0s", 0.0)],
    "ping_timeout": DURATIONS,
    "rate_limit": [("0", 0.0), ("0.5", 0.5), ("250", 250.0)],
    "rate_burst": COUNTS,
    "rate_bytes": [*SIZES, ("0", 0)],
    "max_rooms_per_client": COUNTS,
    "warn_message_size": [*SIZES, ("0", 0)],
    "send_queue_size": SIZES,
    "slow_client": [("disconnect", "disconnect"), ("drop", "drop")],
    "presence_max_users": COUNTS,
    "history_ring": SIZES,
    "recovery_limit": COUNTS[1:],
    "stream_max_size": SIZES,
    "stream_ttl": [pair for pair in DURATIONS if pair[1] >= 1],
    "stream_interval": [*(pair for pair in DURATIONS if pair[1] <= 10), ("0", 0.0), ("0ms", 0.0)],
    "drain_timeout": [*DURATIONS, ("0", 0.0), ("0ms", 0.0)],
    "backplane_url": [(url, url) for url in URLS],
    "backplane_timeout": DURATIONS,
    "backplane_queue_size": SIZES,
    "restart_code": [("1012", 1012), ("1001", 1001)],
    "node_lease": DURATIONS,
}
BAD: dict[str, list[str]] = {
    "port": ["-1", "65536", "http", "80.5", "9" * 5000],
    "path": ["ws", "ws/", "/a b", "/a\tb", "/a?b", "/a#b", "https://a.example/ws"],
    "allowed_origins": BAD_ORIGINS,
    "allow_missing_origin": BAD_BOOLS,
    "api_keys": ["k" * 15, f"{'k' * 16},short", "ä" * 16, "k" * 15 + "\n" + "k", "k" * 15 + "\x7f" + "k"],
    "subprotocols": ["two words", "a/b", "bearer,ä", '["bearer"]', "a=b"],
    "enable_compression": BAD_BOOLS,
    "handshake_timeout": [*BAD_DURATIONS, "0", "0s"],
    "expiry_grace": BAD_DURATIONS,
    "read_buffer_size": BAD_SIZES,
    "write_buffer_size": BAD_SIZES,
    "socket_send_buffer": [*(size for size in BAD_SIZES if size != "0"), "2GiB"],
    "max_message_size": BAD_SIZES,
    "message_timeout": [*BAD_DURATIONS, "0"],
    "max_unfinished_size": BAD_SIZES,
    "max_connections": BAD_COUNTS,
    "max_connections_per_ip": BAD_COUNTS,
    "max_header_size": BAD_SIZES,
    "max_header_count": [*BAD_COUNTS, "0"],
    "ping_interval": BAD_DURATIONS,
    "ping_timeout": [*BAD_DURATIONS, "0"],
    "rate_limit": ["-1", "-0.5", "fast", "nan", "inf", "1e400"],
    "rate_burst": BAD_COUNTS,
    "rate_bytes": [size for size in BAD_SIZES if size != "0"],
    "max_rooms_per_client": BAD_COUNTS,
    "warn_message_size": [size for size in BAD_SIZES if size != "0"],
    "send_queue_size": BAD_SIZES,
    "slow_client": ["kick", "DROP", "true"],
    "presence_max_users": BAD_COUNTS,
    "history_ring": BAD_SIZES,
    "recovery_limit": [*BAD_COUNTS, "0"],
    "stream_max_size": BAD_SIZES,
    "stream_ttl": [*BAD_DURATIONS, "0", "999ms"],
    "stream_interval": [*BAD_DURATIONS, "10.1s"],
    "drain_timeout": BAD_DURATIONS,
    "backplane_url": BAD_URLS,
    "backplane_timeout": [*BAD_DURATIONS, "0"],
    "backplane_queue_size": BAD_SIZES,
    "restart_code": ["1000", "1013", "restart"],
    "node_lease": [*BAD_DURATIONS, "0"],
}

Source = Literal["environment", "file"]


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without `.env`, and no variable of the developer's."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("WS_"):
            monkeypatch.delenv(name)


def variable(field: str) -> str:
    return f"WS_{field.upper()}"


def provide(source: Source, values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "environment":
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    else:
        quoted = (f"{name}='{value}'\n" for name, value in values.items())
        Path(".env").write_text("".join(quoted), encoding="utf-8")


def test_a_key_is_in_no_text_of_the_settings() -> None:
    key = "a-key-that-nobody-sees"
    assert key not in repr(Settings(_env_file=None, api_keys=key))
    assert key not in str(Settings(_env_file=None, api_keys=(key,)))


def test_defaults_are_those_of_the_documentation() -> None:
    assert dict(Settings()) == DEFAULTS


def test_the_tables_of_this_file_leave_no_setting_out() -> None:
    textual = Settings.model_fields.keys() - {"check_origin"}
    assert GOOD.keys() == textual
    # Every text is a host, until a server tries to listen on it.
    assert BAD.keys() == textual - {"host"}


@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("field", GOOD)
def test_good_values(field: str, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, value in GOOD[field]:
        provide(source, {variable(field): text}, monkeypatch)
        settings = Settings()
        assert getattr(settings, field) == value, text
        assert dict(settings) == {**DEFAULTS, field: value}, "the others keep their defaults"


@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("field", BAD)
def test_bad_values_are_refused_and_their_variable_named(
    field: str, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in BAD[field]:
        provide(source, {variable(field): text}, monkeypatch)
        with pytest.raises(SettingsError, match=variable(field)) as caught:
            pytest.fail(f"{text!r} became {getattr(Settings(), field)!r}")
        assert caught.value.problems.keys() == {variable(field)}, text
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, VelocityError)


def test_error_says_what_to_write() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(ping_interval="soon", send_queue_size="lots", slow_client="kick", allowed_origins="example.com")
    problems = caught.value.problems
    assert "10s, 1m30s, 500ms" in problems["WS_PING_INTERVAL"]
    assert "'soon'" in problems["WS_PING_INTERVAL"]
    assert "64KiB" in problems["WS_SEND_QUEUE_SIZE"]
    assert "'disconnect' or 'drop'" in problems["WS_SLOW_CLIENT"]
    assert "'example.com'" in problems["WS_ALLOWED_ORIGINS"]


@pytest.mark.parametrize("source", ["environment", "file"])
def test_every_bad_value_is_named_at_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {variable(field): texts[0] for field, texts in BAD.items()}
    provide(source, bad, monkeypatch)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert caught.value.problems.keys() == bad.keys()
    for name in bad:
        assert name in str(caught.value)


@pytest.mark.parametrize("field", BAD)
def test_bad_value_from_code_is_refused_alike(field: str) -> None:
    with pytest.raises(SettingsError, match=variable(field)):
        Settings(**{field: BAD[field][0]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("port", None),
        ("handshake_timeout", 0),
        ("handshake_timeout", -1.5),
        ("handshake_timeout", float("nan")),
        ("ping_interval", float("inf")),
        ("drain_timeout", -1),
        ("rate_limit", float("nan")),
        ("send_queue_size", 0),
        ("send_queue_size", 10.5),
        ("max_connections", -1),
        ("allowed_origins", ["https://a.example", "b.example"]),
        ("allowed_origins", 5),
        ("check_origin", "not callable"),
    ],
)
def test_bad_value_of_a_type_only_code_has(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=variable(field)):
        Settings(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("handshake_timeout", 3, 3.0),
        ("handshake_timeout", 0.25, 0.25),
        ("handshake_timeout", "1m", 60.0),
        ("send_queue_size", 5, 5),
        ("send_queue_size", "5KiB", 5120),
        ("allowed_origins", ["https://a.example"], ("https://a.example",)),
        ("allowed_origins", "https://a.example, *", ("https://a.example", "*")),
        ("path", "/x/", "/x"),
    ],
)
def test_code_may_use_numbers_and_texts(field: str, value: object, expected: object) -> None:
    assert getattr(Settings(**{field: value}), field) == expected


# --- who wins


def test_code_beats_variables_beat_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WS_PORT=1\nWS_HOST=from-file\nWS_PATH=/file\n")
    monkeypatch.setenv("WS_PORT", "2")
    monkeypatch.setenv("WS_HOST", "from-variable")
    settings = Settings(port=3)
    assert (settings.port, settings.host, settings.path) == (3, "from-variable", "/file")


def test_code_hides_a_bad_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_PORT", "nonsense")
    assert Settings(port=3).port == 3


def test_foreign_keys_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DATABASE_URL=postgres://db\nPORT=80\nWS_SOMETHING_ELSE=x\nHOST=elsewhere\nWS_PORT=7\n")
    monkeypatch.setenv("HOST", "elsewhere")
    monkeypatch.setenv("WS_UNHEARD_OF", "x")
    assert dict(Settings()) == {**DEFAULTS, "port": 7}


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_empty_variable_is_not_set(field: str, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, {variable(field): ""}, monkeypatch)
    assert dict(Settings()) == DEFAULTS


def test_empty_variable_lets_the_file_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WS_PORT=7\n")
    monkeypatch.setenv("WS_PORT", "")
    assert Settings().port == 7


def test_file_may_hold_comments_quotes_and_exports() -> None:
    Path(".env").write_text('# a comment\nexport WS_PORT=7\nWS_HOST="0.0.0.0" # everyone\n\n#WS_PATH=/x\n')
    assert dict(Settings()) == {**DEFAULTS, "port": 7, "host": "0.0.0.0"}


# --- secrets and code


@pytest.mark.parametrize("source", ["environment", "file", "code"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@cache.internal:seven/0",
        "nats://hunter2@",
        "nats://a:4222,hunter2@b:x",
        "redis://?password=hunter2",
        "redis://cache.internal?prefix=hunter2!",
        "embedded://hunter2@",
        "redis-sentinel://:hunter2@cache.internal",
        "user:hunter2@cache.internal:6379",
        "redis:/user:hunter2@cache.internal",
        "hunter2",
    ],
)
def test_no_password_in_an_error(
    url: str, source: Literal["environment", "file", "code"], monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {"port": "nonsense"}
    if source == "code":
        values["backplane_url"] = url
    else:
        provide(source, {"WS_BACKPLANE_URL": url}, monkeypatch)
    with pytest.raises(SettingsError, match="WS_BACKPLANE_URL") as caught:
        Settings(**values)
    shown = f"{caught.value} {caught.value!r} {caught.value.problems}"
    assert "hunter2" not in shown
    # A chained exception would be printed with the traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("text", ["os.system", "null", "{}", "[", ""])
def test_check_origin_is_no_variable(source: Source, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, {"WS_CHECK_ORIGIN": text}, monkeypatch)
    assert dict(Settings()) == DEFAULTS


def test_check_origin_from_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(request: HTTPConnection) -> bool:
        return "x-trusted" in request.headers

    monkeypatch.setenv("WS_CHECK_ORIGIN", "something else")
    assert Settings(check_origin=check).check_origin is check


def test_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc] # what mypy says is what this test shows
    assert settings.port == 6001


# --- the units, in general


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    expected = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert Settings(_env_file=None, ping_interval=text).ping_interval == pytest.approx(expected)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_setting_or_a_settings_error(text: str) -> None:
    for field in ("ping_interval", "send_queue_size", "port", "path", "allowed_origins", "rate_limit"):
        problems: dict[str, str] = {}
        value = DEFAULTS[field]
        try:
            value = getattr(Settings(_env_file=None, **{field: text}), field)
        except SettingsError as error:
            problems = error.problems
        assert problems.keys() <= {variable(field)}
        assert type(value) is type(DEFAULTS[field])


# --- the example file


def test_env_example_lists_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assignments = [line.removeprefix("# ") for line in lines if line.removeprefix("# ").startswith("WS_")]
    names = [line.partition("=")[0] for line in assignments]
    assert sorted(names) == sorted(variable(field) for field in GOOD), "every setting once, and nothing else"
    # An empty value counts as not set, so it would show no default at all.
    empty = [name for line in assignments if not (pair := line.partition("="))[2] and (name := pair[0])]
    assert empty == ["WS_ALLOWED_ORIGINS", "WS_API_KEYS", "WS_SUBPROTOCOLS"]
    for line in lines:
        assert not line or line.startswith(("#", "WS_")), line
    file = tmp_path / "example"
    file.write_text("\n".join(assignments), encoding="utf-8")
    assert dict(Settings(_env_file=file)) == DEFAULTS


def test_the_page_lists_every_setting_with_its_default() -> None:
    table = re.findall(
        r"^\| (`WS_.*?`) \| (.*?) \| .*\|$", (ROOT / "docs/settings.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = [name for names, _ in table for name in re.findall(r"`(\w+)`", names)]
    shown = [value for _, values in table for value in re.findall(r"`(.+?)`|none", values)]
    assert sorted(names) == sorted(variable(field) for field in GOOD), "every setting once, and nothing else"
    values = {name.removeprefix("WS_").lower(): value for name, value in zip(names, shown, strict=True)}
    assert dict(Settings(**values)) == DEFAULTS


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"prot: no such setting.*port"):
        Settings(prot=1)


def test_a_file_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes(b"WS_PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env: it is not UTF-8"):
        Settings()


def test_misspelled_variables_are_told_from_those_of_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WS_RATE_LIMITT=5\nexport WS_PROTOCOLS=chat\nWS_PORT=1\nDB_PORT=5\n")
    for name in ("WS_MAX_CONECTIONS", "ws_alowed_origins", "WS_TOKEN", "WS_URL", "WS_HOST", "PWS_PORTS"):
        monkeypatch.setenv(name, "7")
    meant = {"WS_MAX_CONECTIONS": "WS_MAX_CONNECTIONS", "WS_ALOWED_ORIGINS": "WS_ALLOWED_ORIGINS"}
    assert Settings(_env_file=None).misspelled == meant
    in_file = {"WS_RATE_LIMITT": "WS_RATE_LIMIT", "WS_PROTOCOLS": "WS_SUBPROTOCOLS"}
    assert Settings().misspelled == meant | in_file


def test_a_key_that_cannot_be_one_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(_env_file=None, api_keys="too-short")
    assert "WS_API_KEYS" in str(caught.value)
    assert "too-short" not in str(caught.value)
    assert LONG_KEY not in repr(Settings(_env_file=None, api_keys=LONG_KEY))
