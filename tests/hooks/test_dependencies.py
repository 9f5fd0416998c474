"""Dependencies: which are refused where a hook is registered, and in which order the others are called."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Depends, Header, Query, Response
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from tests.support import DEADLINE
from tests.support.hooks import THREADS
from velocity_ws import Broker, Client, HookError, Message
from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.scope import SCOPE, Scope, Surroundings
from velocity_ws.hooks.validation import InvalidParameterError


class Comment(BaseModel):
    text: str


def of_client(client: Client) -> None: ...
def of_message(message: Message) -> None: ...
def of_broker(broker: Broker) -> None: ...
def of_handshake(connection: HTTPConnection) -> None: ...
def of_header(x_token: Annotated[str, Header()]) -> None: ...
def of_query(q: str = "") -> None: ...
def of_below(message: Annotated[None, Depends(of_message)]) -> None: ...
def of_path(chat_id: int) -> int:
    return chat_id


def of_body(comment: Comment) -> None: ...
def of_embedded(comment: Annotated[str, Body()]) -> None: ...
def of_response(response: Response) -> None: ...
def of_tasks(tasks: BackgroundTasks) -> None: ...
def of_nothing_said(client) -> None: ...  # type: ignore[no-untyped-def]
def of_unknown(session: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821
@contextlib.contextmanager
def of_manager() -> Iterator[None]:
    yield


@dataclasses.dataclass
class Paging:
    limit: int

    def __call__(self) -> int:
        return self.limit


def hook_of(call: Callable[..., Any]) -> Callable[..., Any]:
    async def hook(value: Any) -> Any:
        return value

    hook.__annotations__["value"] = Annotated[Any, Depends(call)]
    return hook


@pytest.mark.parametrize(
    ("kind", "call", "problem"),
    [
        (
            "authenticate",
            of_client,
            r"of_client, which hook_of.*hook depends on, asks for the client in 'client', which no",
        ),
        ("connect", of_message, "asks for the message in 'message', which no connect hook has"),
        ("connect", of_below, "of_message, .* asks for the message"),
        ("disconnect", of_message, "the message"),
        ("binary", of_message, "the message"),
        ("node", of_client, "the client"),
        ("node", of_handshake, "the request"),
        ("node", of_header, "the header of a handshake in 'x_token', which no node hook has"),
        ("presence_info", of_query, "the query of a handshake"),
        ("event", of_body, "'comment' from the body of a request.*message: Message"),
        ("event", of_embedded, "'comment' from the body"),
        ("event", of_response, "no response: authenticate can return"),
        ("event", of_tasks, "no response: use asyncio.create_task"),
        ("event", of_nothing_said, "'client', which is not taken from the query.*client: Client"),
        ("event", of_unknown, "annotation 'Unknown' of 'session' .* cannot be resolved"),
        ("event", Paging(50), r"Paging, which hook_of.* depends on, has no hash: freeze the dataclass"),
        ("event", of_manager, "of_manager is a context manager.*without the decorator"),
    ],
)
def test_what_a_hook_does_not_have_is_refused(kind: Kind, call: Callable[..., Any], problem: str) -> None:
    with pytest.raises(HookError, match=problem) as caught:
        Hook(kind, hook_of(call))
    assert "hook_of" in str(caught.value) or "of_manager" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("authenticate", of_handshake),
        ("authenticate", of_broker),
        ("authenticate", of_header),
        ("connect", of_client),
        ("message", of_message),
        ("event", of_below),
        ("room_event", of_message),
        ("authorize", of_client),
        ("error", of_client),
        ("node", of_broker),
        ("presence_info", of_broker),
    ],
)
def test_what_a_hook_has_may_be_asked_for(kind: Kind, call: Callable[..., Any]) -> None:
    dependencies = Hook(kind, hook_of(call)).dependencies
    assert dependencies is not None
    assert [step.call for step in dependencies.steps][-1] is call


class _OfAnotherLibrary:
    pass


_OfAnotherLibrary.__name__ = "Depends"
_OfAnotherLibrary.__module__ = "fast_depends.use"
OF_ANOTHER_LIBRARY = _OfAnotherLibrary()


def test_a_depends_of_another_library_is_refused_and_never_passed_as_an_object() -> None:
    async def by_default(client: Any, db: Any = OF_ANOTHER_LIBRARY) -> None: ...
    async def annotated(client: Any, db: Any) -> None: ...

    annotated.__annotations__["db"] = Annotated[Any, OF_ANOTHER_LIBRARY]
    for hook in (by_default, annotated):
        with pytest.raises(HookError, match=r"Depends of fast_depends for 'db'.*pip install .velocity-ws\[fastapi\]"):
            Hook("event", hook)


def test_an_annotation_that_cannot_be_resolved_says_so_where_a_parameter_is_not_known() -> None:
    async def hook(client: Any, data: Any, *, db: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(HookError, match=r"asks for 'db'.*annotation of 'db' cannot be resolved: name 'Missing'"):
        Hook("event", hook)


class _Client:
    request = HTTPConnection({"type": "websocket", "path_params": {}})


GIVEN = {"client": _Client, "message": "MESSAGE", "data": "DATA"}


async def first() -> str:
    return "first"


async def second(first: Annotated[str, Depends(first)]) -> str:
    return f"second of {first}"


async def test_each_is_called_once_after_what_it_depends_on() -> None:
    async def hook(
        c: Any,
        d: Any,
        a: Annotated[str, Depends(second)],
        b: Annotated[str, Depends(first)],
        e: str = Depends(first, use_cache=False),
    ) -> Any:
        return c, d, a, b, e

    registered = Hook("event", hook)
    assert registered.dependencies is not None
    assert [step.call for step in registered.dependencies.steps] == [first, second, first]
    async with Scope(Surroundings(), lambda: THREADS) as scope:
        result = await registered(THREADS, {**GIVEN, SCOPE: scope})
    assert result == (_Client, "DATA", "second of first", "first", "first")


async def test_hooks_of_one_scope_share_what_they_depend_on() -> None:
    made = []

    async def get() -> AsyncIterator[object]:
        made.append(object())
        yield made[-1]

    hook = Hook("event", hook_of(get))
    async with Scope(Surroundings(), lambda: THREADS) as scope:
        values = {**GIVEN, SCOPE: scope}
        assert await hook(THREADS, values) is await hook(THREADS, values)
    async with Scope(Surroundings(), lambda: THREADS) as scope:
        await hook(THREADS, {**GIVEN, SCOPE: scope})
    assert len(made) == 2


async def test_a_dependency_may_ask_for_the_parameters_of_a_room() -> None:
    hook = Hook("authorize", hook_of(of_path), ["chat_id"])
    async with Scope(Surroundings(), lambda: THREADS) as scope:
        values = {"client": _Client, "room": "chat:7", "chat_id": "7", SCOPE: scope}
        assert await hook(THREADS, values) == 7
        for text in ("seven", "07", " 7", "7.0"):  # which are no rooms, as they are none for the hook itself
            with pytest.raises(InvalidParameterError) as caught:
                async with Scope(Surroundings(), lambda: THREADS) as other:
                    await hook(THREADS, {**values, "chat_id": text, SCOPE: other})
            assert caught.value.parameter == "chat_id"


def of_room(room: str) -> str:
    return room


def of_room_unsaid(room) -> Any:  # type: ignore[no-untyped-def]
    return room


def of_room_or_none(room: str | None = None) -> str | None:
    return room


def below_room(name: Annotated[str, Depends(of_room)]) -> str:
    return name


ROOM_KINDS: list[Kind] = ["authorize", "room_event", "room_join", "room_leave", "join", "leave"]


def connection(query: bytes = b"") -> HTTPConnection:
    return HTTPConnection({"type": "websocket", "path_params": {}, "query_string": query, "headers": []})


@pytest.mark.parametrize("kind", ROOM_KINDS)
@pytest.mark.parametrize("call", [of_room, of_room_unsaid, of_room_or_none, below_room])
async def test_a_dependency_that_names_the_room_gets_that_of_its_hook_and_never_the_query(
    kind: Kind, call: Callable[..., Any]
) -> None:
    class Sender:
        request = connection(b"room=doc:2")

    def none() -> None: ...

    for first, overrides in ((call, {}), (none, {none: call})):

        class App:
            dependency_overrides = overrides

        surroundings = Surroundings()
        surroundings.apps.append(App)
        async with Scope(surroundings, lambda: THREADS) as scope:
            values = {"client": Sender, "data": 0, "message": 0, "room": "doc:1", SCOPE: scope}
            assert await Hook(kind, hook_of(first))(THREADS, values) == "doc:1"


def misspelt(document_id: int) -> None: ...
def with_default(document_id: int = 0) -> None: ...
def below_misspelt(value: Annotated[None, Depends(misspelt)]) -> None: ...


@pytest.mark.parametrize("kind", ["authorize", "room_event", "room_join", "room_leave"])
@pytest.mark.parametrize("call", [misspelt, with_default, below_misspelt])
def test_in_rooms_of_a_kind_nothing_is_taken_from_the_query_by_its_name_alone(
    kind: Kind, call: Callable[..., Any]
) -> None:
    with pytest.raises(HookError, match=r"'document_id', which the pattern .*: doc_id, part\).*Query\(\)"):
        Hook(kind, hook_of(call), ["doc_id", "part"])


@pytest.mark.parametrize("kind", ["authenticate", "connect", "message", "event", "room_event", "error"])
@pytest.mark.parametrize("name", ["broker", "client", "close", "data", "error", "message", "node", "room"])
def test_names_of_values_are_never_those_of_the_query_unless_that_is_said(kind: Kind, name: str) -> None:
    def implicit(value: int) -> None: ...
    def explicit(value: Annotated[int, Query(alias=name)]) -> None: ...

    for call, annotation in ((implicit, int), (explicit, Annotated[int, Query()])):
        vars(call)["__signature__"] = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)]
        )
    with pytest.raises(HookError, match=rf"{name}: Annotated\[…, Query\(\)\]"):
        Hook(kind, hook_of(implicit))
    assert Hook(kind, hook_of(explicit)).dependencies is not None


async def test_what_is_said_to_be_of_the_query_is_in_rooms_too() -> None:
    def chosen(room: Annotated[str, Query()], page: int = Query(1)) -> tuple[str, int]:
        return room, page

    class Sender:
        request = connection(b"room=doc:2&page=3")

    async with Scope(Surroundings(), lambda: THREADS) as scope:
        values = {"client": Sender, "room": "doc:1", "doc_id": "1", SCOPE: scope}
        assert await Hook("authorize", hook_of(chosen), ["doc_id"])(THREADS, values) == ("doc:2", 3)


async def test_what_the_query_says_to_a_guard_is_not_shared_with_the_handler_of_a_room() -> None:
    def named(doc_id: int) -> int:
        return doc_id

    class Sender:
        request = connection(b"doc_id=2")

    def below(value: int = Depends(named)) -> int:
        return value

    for call in (named, below):
        guard, handler = Hook("message", hook_of(call)), Hook("room_event", hook_of(call), ["doc_id"])
        async with Scope(Surroundings(), lambda: THREADS) as scope:
            values = {"client": Sender, "data": 0, "message": 0, "room": "doc:1", "doc_id": "1", SCOPE: scope}
            assert (await guard(THREADS, values), await handler(THREADS, values)) == (2, 1)


async def test_who_is_cancelled_ends_the_last_first_though_that_waits_for_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velocity_ws.hooks.scope.PATIENCE", DEADLINE)
    log: list[str] = []
    free, entered = threading.Event(), asyncio.Event()

    async def connection() -> AsyncIterator[str]:
        try:
            yield "connection"
        finally:
            log.append("connection")

    def session(of: str = Depends(connection)) -> Iterator[str]:
        try:
            yield of
        finally:
            log.append("session")

    hook = Hook("event", hook_of(session))
    with ThreadPoolExecutor(1) as exits:
        exits.submit(free.wait)

        async def handle() -> None:
            async with Scope(Surroundings(), lambda: exits) as scope:
                await hook(THREADS, {**GIVEN, SCOPE: scope})
                entered.set()

        handling = asyncio.create_task(handle())
        await entered.wait()
        await asyncio.sleep(0)
        handling.cancel()
        await asyncio.sleep(0)
        begun = list(log)
        free.set()
        assert begun == []
        with pytest.raises(asyncio.CancelledError):
            await handling
    assert log == ["session", "connection"]


async def test_what_gives_a_connection_back_waits_for_no_thread_of_those_who_want_one() -> None:
    threads = ThreadPoolExecutor(1)
    log = []

    def get() -> Iterator[None]:
        log.append("begun")
        yield
        log.append("ended")

    hook = Hook("event", hook_of(get))
    with ThreadPoolExecutor(1) as exits:
        async with Scope(Surroundings(), lambda: exits) as scope:
            await hook(threads, {**GIVEN, SCOPE: scope})
            threads.shutdown()
    assert log == ["begun", "ended"]
