"""Terms: whose options and times count for the connections of an application, with a broker and without."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config

from velocity_ws import Settings
from velocity_ws.uvicorn.terms import of_broker, of_server
from velocity_ws.websocket.keepalive import Keepalive
from velocity_ws.websocket.unfinished import UnfinishedMessages


async def app(*_: object) -> None:
    """Never called."""


def configured(**options: Any) -> Config:
    """uvicorn's, which would set up its log."""
    return Config(app, log_config=None, **options)


def shared() -> tuple[UnfinishedMessages, Keepalive]:
    """What is shared beside options."""
    loop = asyncio.get_running_loop()
    return UnfinishedMessages(loop, 1.0, 1), Keepalive(loop, 1.0, 1.0)


async def test_the_options_of_uvicorn_count_where_there_is_no_broker() -> None:
    unfinished, keepalive = shared()
    config = configured(ws_max_size=7, ws_per_message_deflate=False, timeout_graceful_shutdown=3)
    terms = of_server(config, unfinished, keepalive)
    assert terms == (False, 3.0, keepalive, 7, 1012, unfinished, False)
    assert of_server(configured(), unfinished, None).drain_timeout == 10.0


async def test_the_settings_of_a_broker_count_for_its_clients() -> None:
    unfinished, keepalive = shared()
    settings = Settings(_env_file=None, max_message_size=8, enable_compression=True, restart_code=1001)
    config = configured(ws_max_size=7, ws_per_message_deflate=False)
    terms = of_broker(settings, config, unfinished, keepalive)
    assert (terms.deflate, terms.max_size, terms.restart_code, terms.waits_for_session) == (True, 8, 1001, True)
    assert (terms.keepalive, terms.unfinished) == (keepalive, unfinished)


@pytest.mark.parametrize(("graceful", "seconds"), [(None, 5.0), (3, 3), (9, 5.0), (0, 0)])
async def test_the_server_may_stop_sooner_than_the_broker_would(graceful: int | None, seconds: float) -> None:
    config = configured(timeout_graceful_shutdown=graceful)
    assert of_broker(Settings(_env_file=None, drain_timeout=5), config, shared()[0], None).drain_timeout == seconds
