"""What names a backplane, and what is made of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import settings
from velocity_ws import SettingsError
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import check_url, cluster_urls, engine_of, options_of, server_urls, split_url

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
import velocity_ws
from velocity_ws.backplane import create_backplane
try:
    create_backplane(sys.argv[2])
except velocity_ws.SettingsError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("url", "engine", "prefix"),
    [
        ("redis://localhost", "redis://localhost", "velocity"),
        ("redis://localhost/1?prefix=shop", "redis://localhost/1", "shop"),
        ("unix:///a.sock?db=1&prefix=shop", "unix:///a.sock?db=1", "shop"),
        ("nats://u:p%40ss@a:1,b:2?prefix=x-1", "nats://u:p%40ss@a:1,b:2", "x-1"),
        ("rediss://h?ssl_ca_certs=%2Fa%20b.pem", "rediss://h?ssl_ca_certs=%2Fa%20b.pem", "velocity"),
        ("memory://a?prefix=", "memory://a", ""),
    ],
)
def test_the_prefix_is_taken_off(url: str, engine: str, prefix: str) -> None:
    assert split_url(url) == (engine, prefix)


@pytest.mark.parametrize(
    ("url", "base", "options"),
    [
        ("embedded://", "embedded://", {}),
        ("embedded://shop?store=/var/lib/my%20c@hat+#1", "embedded://shop", {"store": "/var/lib/my c@hat+#1"}),
        ("embedded://?prefix=x&store=/a", "embedded://", {"store": "/a"}),
        ("nats://u:p@a:1,b?replicas=3", "nats://u:p@a:1,b", {"replicas": "3"}),
        ("redis://h?client_name=x", "redis://h?client_name=x", {}),
    ],
)
def test_what_a_url_says_of_history(url: str, base: str, options: dict[str, str]) -> None:
    check_url(url)
    assert options_of(split_url(url)[0]) == (base, options)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("embedded://?store=logs", "absolute path"),
        ("embedded://?store=", "absolute path"),
        ("embedded://?store=/", "absolute path"),
        ("embedded://?store=~/logs", "absolute path"),
        ("embedded://?stores=/a", "has no option stores; there are prefix and store"),
        ("embedded://a/b?store=/a", "a name after"),
        ("nats://a?replicas=0", "from 1 to 5"),
        ("nats://a?replicas=three", "from 1 to 5"),
        ("tls://a,b?prefix=x&replicas=7", "from 1 to 5"),
    ],
)
def test_what_a_url_cannot_say_of_history(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_url(url)


def test_several_servers() -> None:
    assert server_urls("nats://u:p@a:1,b,tls://c:3") == ["nats://u:p@a:1", "nats://b", "tls://c:3"]


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("redis", "redis://localhost", "velocity-ws[redis]"),
        ("redis", "valkeys://localhost", "velocity-ws[redis]"),
        ("redis", "unix:///run/redis.sock", "velocity-ws[redis]"),
        ("hiredis", "redis://localhost", "velocity-ws[redis]"),
        ("hiredis", "redis+cluster://localhost", "velocity-ws[redis]"),
        ("nats", "nats://localhost", "velocity-ws[nats]"),
        ("nats", "tls://localhost", "velocity-ws[nats]"),
        ("nats", "embedded://", "velocity-ws[embedded]"),
    ],
)
def test_what_is_not_installed_is_named(module: str, url: str, extra: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, module, url], capture_output=True, text=True, check=True)
    assert "WS_BACKPLANE_URL" in done.stdout
    assert f"pip install '{extra}'" in done.stdout


def test_what_an_engine_cannot_use_is_not_repeated() -> None:
    with pytest.raises(SettingsError, match="WS_BACKPLANE_URL") as caught:
        create_backplane("redis://:s3cret@localhost?socket_connect_timeout=hunter2")
    assert "s3cret" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:1,2secret@h",
        "nats://u:1,2secret@h:4222,i",
        "tls://1,secret@h",
        "nats://u:se,cret@h",
        "nats://u:1/2secret@h",
        "redis://:12/secret@h",
        "rediss://u:12/secret@h/0",
        "redis://u:12?secret@h",
        "valkey://u:12#secret@h",
        "redis://u:se#cret@h",
        "redis+cluster://u:se/cret@h",
        "redis+cluster://u:1,secret@h",
        "valkeys+cluster://a:1,u:secret@b:1",
    ],
)
def test_a_password_that_has_to_be_encoded_is_no_server(url: str) -> None:
    with pytest.raises(SettingsError, match="%2F %3F %23 %2C") as caught:
        settings(backplane_url=url)
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="%2F %3F %23 %2C"):
        create_backplane(url)


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:1%2C2secret@h",
        "nats://u:p@a:1,b:2",
        "nats://u:p@a,u:p@b",
        "nats://a,tls://u:p@b",
        "redis://u:1,2@h",
        "redis://u:p@ss@h/0?client_name=a@b",
        "redis://h?client_name=a@b",
        "unix:///a@b.sock",
    ],
)
def test_other_characters_are_taken_as_they_are(url: str) -> None:
    create_backplane(settings(backplane_url=url).backplane_url)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("redis://h", "velocity"),
        ("redis://h/", "velocity"),
        ("redis://h/0", "velocity"),
        ("redis://h/00?db=0", "velocity"),
        ("redis://u:p@h:1/12", "velocity.db=12"),
        ("rediss://h/%31", "velocity.db=1"),
        ("valkey://h/1/", "velocity.db=1"),
        ("valkeys://h/0?db=2", "velocity.db=2"),  # the option wins, as in redis-py
        ("redis+cluster://h/3", "velocity.db=3"),
        ("redis+cluster://a:1,b:2/3?client_name=x", "velocity.db=3"),
        ("redis+cluster://u:p@a:1,b:2?prefix=shop", "shop"),
        ("unix:///run/1/s.sock", "velocity"),
        ("unix:///run/s.sock?db=4", "velocity.db=4"),
        ("redis://h/5?prefix=shop", "shop"),
        ("nats://h/1", "velocity"),
        ("memory://1", "velocity"),
    ],
)
def test_what_topics_begin_with(url: str, prefix: str) -> None:
    assert split_url(url)[1] == prefix
    if url.startswith(("redis:", "rediss:", "unix:")):
        pool = create_backplane(url)._primary._pool  # type: ignore[attr-defined]
        assert prefix == "shop" or pool.connection_kwargs.get("db", 0) == int(prefix.partition("=")[2] or "0")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://h", "valkey://u:secret@H:6379/0?client_name=x"),
        ("nats://a,b:1", "tls://u:p@b:1,tls://a:4222"),
        ("embedded://", "embedded://default"),
        ("unix:///s.sock", "unix://u:p@/s.sock?db=0"),
        ("redis+cluster://h:1", "valkeys+cluster://h:1"),
        ("redis+cluster://a,b:1", "valkeys+cluster://u:secret@b:1,a:6379/0?client_name=x"),
        ("redis://[::1]", "redis://[::1]:6379?prefix=a"),
    ],
)
def test_an_engine_is_one_however_it_is_written(one: str, other: str) -> None:
    assert engine_of(one) == engine_of(other)
    assert "secret" not in engine_of(other)


def test_each_server_of_a_cluster_has_what_is_said_once() -> None:
    assert cluster_urls("rediss+cluster://u:p@a:1,[::1],c:3/0?client_name=x") == [
        "rediss://u:p@a:1/0?client_name=x",
        "rediss://u:p@[::1]/0?client_name=x",
        "rediss://u:p@c:3/0?client_name=x",
    ]
    assert cluster_urls("valkey+cluster://a") == ["valkey://a"]


@pytest.mark.parametrize("hosts", ["", ",", "a:1,b:x", "a:1,redis+cluster://b:1", ":1,:2"])
def test_servers_of_a_cluster_that_cannot_be(hosts: str) -> None:
    with pytest.raises(SettingsError):
        settings(backplane_url=f"redis+cluster://{hosts}")


def test_engines_are_several() -> None:
    urls = ["redis://h", "redis://h:1", "redis://i", "redis+cluster://h", "nats://h", "unix:///h", "embedded://h"]
    assert len({engine_of(url) for url in urls}) == len(urls)
