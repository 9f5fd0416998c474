"""Sync: what can be awaited has a blocking twin with the same arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from velocity_ws import Broker, Client, Emitter, Target
from velocity_ws.broker.server_api import ServerAPI
from velocity_ws.broker.sync import SyncBroker, SyncNodes, SyncServerAPI, SyncTarget
from velocity_ws.broker.target import Nodes
from velocity_ws.sessions.client import SyncClient

TWINS: list[tuple[type, type]] = [
    (ServerAPI, SyncServerAPI),
    (Broker, SyncBroker),
    (Emitter, SyncServerAPI),
    (Target, SyncTarget),
    (Nodes, SyncNodes),
    (Client, SyncClient),
]
WITHOUT = {Broker: {"start"}, Emitter: {"start", "stop"}}
"""A broker starts on the loop that serves its clients; an emitter does so by itself, and `Emitter.close` blocks."""
TARGETS = ["to_all", "to_client", "to_clients", "to_nodes", "to_room", "to_rooms", "to_user"]


def public(cls: type) -> Iterator[tuple[str, Any]]:
    return ((name, each) for name, each in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_"))


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("cls", "twin"), TWINS)
def test_all_that_is_awaited_blocks_in_the_twin_with_the_same_arguments(cls: type, twin: type) -> None:
    awaited = {name: each for name, each in public(cls) if inspect.iscoroutinefunction(each)}
    blocking = dict(public(twin))
    assert awaited.keys() - blocking.keys() == WITHOUT.get(cls, set())
    for name in awaited.keys() & blocking.keys():
        assert arguments(blocking[name]) == arguments(awaited[name]), name


@pytest.mark.parametrize("cls", [Broker, Emitter, SyncBroker])
def test_every_target_is_named_in_both_forms(cls: type) -> None:
    assert sorted(name for name, _ in public(cls) if name.startswith("to_")) == TARGETS
