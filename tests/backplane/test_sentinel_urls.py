"""What a URL with Sentinels says, and what one is refused for."""

from __future__ import annotations

import pytest

from velocity_ws.backplane.sentinel_urls import parse_sentinel_url
from velocity_ws.backplane.urls import check_url, engine_of, split_url


def test_all_of_it() -> None:
    found = parse_sentinel_url(
        "rediss+sentinel://me:p%40ss@a:1,[::1],b:26380/my-main?db=2&ssl_ca_certs=/ca.pem&sentinel_password=w%2Frd"
    )
    assert found.name == "my-main"
    assert found.places == [("a", 1), ("::1", 26379), ("b", 26380)]
    assert found.sentinels[1] == "rediss://[::1]:26379?ssl_ca_certs=%2Fca.pem&password=w%2Frd"
    assert found.server == "rediss://me:p%40ss@a?db=2&ssl_ca_certs=%2Fca.pem"


def test_sentinels_without_tls() -> None:
    found = parse_sentinel_url("valkeys+sentinel://a/x?ssl_ca_certs=/ca.pem&sentinel_ssl=no&sentinel_username=s")
    assert found.sentinels == ["redis://a:26379?username=s"]
    assert found.server == "valkeys://a?ssl_ca_certs=%2Fca.pem"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://a:26379", "which servers"),
        ("redis+sentinel://a/", "which servers"),
        ("redis+sentinel://a/x/1", "which servers"),
        ("redis+sentinel:///x", "where are the Sentinels"),
        ("redis+sentinel://a:x/main", "not a URL with Sentinels"),
        ("redis+sentinel://me:secret/word@a/main", "not a URL with Sentinels"),
        ("redis+sentinel://a,me:secret@b/main", "before the first Sentinel"),
        ("redis+sentinel://a/main?sentinel_ssl=perhaps", "yes or no"),
        ("redis+sentinel://a/main?prefix=a.b", "prefix"),
    ],
)
def test_what_it_cannot_be(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


def test_which_engine_it_leads_to() -> None:
    one = engine_of("redis+sentinel://me:secret@b:1,a/main?db=3")
    assert one == engine_of("valkeys+sentinel://A:26379,b:1/main") == "redis+sentinel://a:26379,b:1/main"
    assert split_url("redis+sentinel://a/main?db=3")[1] == "velocity.db=3"
    assert split_url("redis+sentinel://a/main?prefix=shop&db=3") == ("redis+sentinel://a/main?db=3", "shop")
