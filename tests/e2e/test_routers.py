"""EventRouter: hooks and handlers of several modules, in one broker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import Peer, ServerKind, running, settings
from velocity_ws import Broker, Client, EventRouter, HookError, Message


async def test_a_router_has_the_decorators_of_a_broker_and_its_events_get_the_prefix() -> None:
    broker, router = Broker(settings()), EventRouter()
    calls: list[str] = []

    @broker.on_connect
    async def first(client: Client) -> None:
        calls.append("of the broker")

    @router.on_connect
    async def second(client: Client) -> None:
        calls.append("of the router")

    @router.on_message
    def seen(client: Client, message: Message) -> None:
        calls.append(message.event)

    @router.on("double", concurrent=True, rate=5)
    async def double(client: Client, data: int) -> int:
        return 2 * data

    broker.include(router, prefix="sums.")
    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("sums.double", 21))["data"] == 42
        assert (await peer.request("double", 21))["data"] is None, "seen by on_message, handled by nobody"
    assert calls == ["of the broker", "of the router", "sums.double", "double"]
    handler = broker.node.dispatcher._hooks.handler("sums.double")
    assert handler is not None
    assert (handler.options.concurrent, handler.options.rate) == (True, 5)


async def until(peer: Peer, event: str) -> Any:
    while (message := await peer.receive())["event"] != event:
        pass
    return message


@pytest.mark.parametrize("kind", ["ours", "websockets-sansio"])
async def test_hooks_in_a_module_of_their_own_ask_for_the_broker_that_calls_them(kind: ServerKind) -> None:
    router = EventRouter()
    rooms = router.rooms("chat:{chat_id}", presence=True)
    seen: list[Broker] = []

    @router.authenticate
    async def authenticate(broker: Broker) -> str:
        seen.append(broker)
        return "ann"

    @router.on_message
    async def guard(client: Client, broker: Broker) -> None:
        seen.append(broker)

    @router.on("say")
    async def say(client: Client, data: str, broker: Broker) -> None:
        await broker.to_room("chat:1").send("said", data)

    @router.on("later", concurrent=True)
    async def later(broker: Broker) -> bool:
        seen.append(broker)
        return True

    @rooms.authorize
    def authorize(client: Client, broker: Broker) -> bool:
        seen.append(broker)
        return True

    @rooms.on("shout")
    async def shout(broker: Broker, room: str, data: str) -> None:
        await broker.to_room(room).send("said", data.upper())

    @rooms.presence_info
    def info(user: str, broker: Broker) -> dict[str, bool]:
        seen.append(broker)
        return {"is_here": True}

    broker = Broker(settings())
    broker.include(router)
    async with running(broker, kind) as address, address.connect() as peer:
        await peer.request("join", {"room": "chat:1"})
        await until(peer, "presence")
        await peer.send("say", "hello")
        assert (await until(peer, "said"))["data"] == "hello"
        await peer.send("shout", "hello", room="chat:1")
        assert (await until(peer, "said"))["data"] == "HELLO"
        await peer.send("later", id=5)
        assert (await until(peer, "reply"))["data"] is True
    assert len(seen) == 8
    assert set(map(id, seen)) == {id(broker)}


async def test_routers_nest_and_serve_several_brokers() -> None:
    inner, outer = EventRouter(), EventRouter()

    @inner.on("c")
    async def handler(client: Client) -> str:
        return "handled"

    outer.include(inner, "b.")
    for prefix in ("a.", "x."):
        broker = Broker(settings())
        broker.include(outer, prefix)
        async with running(broker) as address, address.connect() as peer:
            assert (await peer.request(f"{prefix}b.c"))["data"] == "handled"


async def test_a_router_may_be_included_while_clients_are_connected() -> None:
    broker, router = Broker(settings()), EventRouter()

    @router.on("late")
    async def late(client: Client) -> str:
        return "handled"

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("late"))["data"]["code"] == "UNKNOWN_EVENT"
        broker.include(router)
        assert (await peer.request("late"))["data"] == "handled"


def test_an_event_of_two_routers_names_both_handlers_and_nothing_is_taken_over() -> None:
    broker, one, two = Broker(settings()), EventRouter(), EventRouter()

    async def said_here(client: Client) -> None: ...
    async def said_there(client: Client) -> None: ...

    one.on("said")(said_here)
    two.on("other")(said_there)
    two.on("said")(said_there)
    two.on_connect(said_there)
    broker.include(one)
    with pytest.raises(HookError, match=r"'said' is handled by .*said_here already, and .*said_there cannot"):
        broker.include(two)
    assert broker.node.dispatcher._hooks.events() == ["said"]
    assert not broker.node.dispatcher.has("connect")
    broker.include(two, "there.")
    assert broker.node.dispatcher._hooks.events() == ["said", "there.other", "there.said"]


@pytest.mark.parametrize("prefix", ["$", "x" * 256])
def test_a_prefix_that_makes_a_name_that_cannot_be_is_refused(prefix: str) -> None:
    router = EventRouter()
    router.on("said")(lambda client: None)
    with pytest.raises(HookError, match=r"reserved|256 characters"):
        Broker(settings()).include(router, prefix)


def test_what_cannot_be_a_hook_is_refused_where_it_stands() -> None:
    router = EventRouter()
    with pytest.raises(HookError, match="database"):

        @router.on("said")
        async def said(client: Client, *, database: Any) -> None: ...

    with pytest.raises(HookError, match="reserved"):
        router.on("$ping")


def test_what_is_registered_on_a_router_after_it_was_included_is_refused() -> None:
    router, other = EventRouter(), EventRouter()
    Broker(settings()).include(router)
    for register in (router.on_connect, router.on("late")):
        with pytest.raises(HookError, match=r"before include\(\)"):
            register(lambda client: None)
    with pytest.raises(HookError, match=r"before include\(\)"):
        router.include(other)


@pytest.mark.parametrize("wrong", [None, "router", Broker(settings())])
def test_only_another_router_can_be_included(wrong: Any) -> None:
    router = EventRouter()
    for target in (Broker(settings()), router):
        with pytest.raises(HookError, match="takes another EventRouter"):
            target.include(wrong)
    with pytest.raises(HookError, match="takes another EventRouter"):
        router.include(router)
