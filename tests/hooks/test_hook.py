"""Hook: what can be one, what its annotations let through, and where it runs."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import functools
import json
import threading
import typing
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict, Union
from uuid import UUID

import pytest
import typing_extensions
from anyio import CancelScope
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

from tests.support import DEADLINE
from tests.support.hooks import THREADS, VALUES, F, call
from velocity_ws import Client, Message
from velocity_ws.errors import HookError
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.options import HandlerOptions
from velocity_ws.hooks.registry import Hooks
from velocity_ws.hooks.validation import InvalidDataError, InvalidParameterError


async def accept(annotation: Any, data: Any) -> Any:
    """What an event's handler gets that annotates its ``data`` so."""

    def handler(client: Any, data: Any) -> Any:
        return data

    handler.__annotations__ = {"data": annotation}
    return await call("event", handler, data=data)


async def refuse(annotation: Any, data: Any) -> list[dict[str, Any]]:
    """The details of a refusal, as they go over the wire."""
    with pytest.raises(InvalidDataError) as caught:
        await accept(annotation, data)
    details: list[dict[str, Any]] = json.loads(json.dumps(caught.value.details))
    assert details == caught.value.details, "plain JSON already"
    for item in details:
        assert item.keys() == {"loc", "msg", "type"}
        assert isinstance(item["msg"], str)
        assert isinstance(item["type"], str)
    return details


# --- what can be called


class Methods:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def plain(self, client: str, data: int) -> object:
        return self.greeting, client, data

    async def coroutine(self, data: int) -> object:
        await asyncio.sleep(0)
        return self.greeting, data

    @classmethod
    def of_class(cls, client: str, data: int) -> object:
        return cls, client, data

    @staticmethod
    def of_nothing(client: str, data: int) -> object:
        return client, data


class PlainCallable:
    def __call__(self, client: str, data: int) -> object:
        return client, data


class AsyncCallable:
    async def __call__(self, client: str, data: int) -> object:
        await asyncio.sleep(0)
        return client, data


def with_database(database: str, client: str, data: int) -> object:
    return database, client, data


async def async_with_database(database: str, client: str, data: int) -> object:
    await asyncio.sleep(0)
    return database, client, data


def logged(function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """A decorator as they are written everywhere."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> object:
        return "logged", await function(*args, **kwargs)

    return wrapper


def plainly_logged(function: F) -> F:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> object:
        return function(*args, **kwargs)

    return wrapper


async def decorated(data: int, client: str) -> object:
    await asyncio.sleep(0)
    return client, data


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Methods("hi").plain, ("hi", "CLIENT", 5)),
        (Methods("hi").coroutine, ("hi", 5)),
        (Methods.of_class, (Methods, "CLIENT", 5)),
        (Methods.of_nothing, ("CLIENT", 5)),
        (PlainCallable(), ("CLIENT", 5)),
        (AsyncCallable(), ("CLIENT", 5)),
        (functools.partial(with_database, "DB"), ("DB", "CLIENT", 5)),
        (functools.partial(with_database, database="DB"), ("DB", "CLIENT", 5)),
        (functools.partial(async_with_database, "DB"), ("DB", "CLIENT", 5)),
        (functools.partial(functools.partial(with_database), "DB"), ("DB", "CLIENT", 5)),
        (functools.partial(Methods("hi").plain), ("hi", "CLIENT", 5)),
        (functools.partial(AsyncCallable()), ("CLIENT", 5)),
        (logged(decorated), ("logged", ("CLIENT", 5))),
        (logged(logged(decorated)), ("logged", ("logged", ("CLIENT", 5)))),
        (plainly_logged(decorated), ("CLIENT", 5)),
        (plainly_logged(Methods("hi").plain), ("hi", "CLIENT", 5)),
        (plainly_logged(PlainCallable()), ("CLIENT", 5)),
    ],
    ids=[
        "method",
        "async method",
        "class method",
        "static method",
        "callable object",
        "async callable object",
        "partial",
        "partial by keyword",
        "partial of async",
        "partial of partial",
        "partial of a method",
        "partial of an async object",
        "decorated async",
        "decorated twice",
        "plain decorator of async",
        "decorated method",
        "decorated object",
    ],
)
async def test_whatever_can_be_called_is_called_and_validated(function: F, expected: object) -> None:
    # The data is a text that the annotation turns into a number: so it was found through all the wrapping.
    assert await call("event", function, data="5") == expected
    with pytest.raises(InvalidDataError):
        await call("event", function, data="no number")


async def test_a_builtin_function() -> None:
    seen: list[str] = []
    await call("connect", seen.append)
    assert seen == ["CLIENT"]


# --- what is no hook


@pytest.mark.parametrize("thing", [None, 5, "chat_message", object()])
def test_what_is_no_function(thing: Any) -> None:
    with pytest.raises(HookError, match="a hook is a function"):
        Hook("event", thing)


def test_a_refused_function_is_not_registered() -> None:
    hooks = Hooks()
    for _ in range(2):
        with pytest.raises(HookError, match="'wrong'"):
            hooks.register_event("e", lambda wrong: None)
        with pytest.raises(HookError, match="'wrong'"):
            hooks.register("connect", lambda client, wrong: None)
    assert hooks.handler("e") is None
    assert hooks.of("connect") == []


# --- annotations


class Post(BaseModel):
    room: str
    text: str = Field(max_length=10)


class Thread(BaseModel):
    posts: list[Post]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Move(TypedDict):
    to: list[int]
    fast: bool


class Search(TypedDict):
    words: str
    limit: NotRequired[int]


class Filter(TypedDict, total=False):
    room: str
    user: typing.Required[int]


class Nested(TypedDict):
    move: Move
    searches: list[Search]


class Comment(TypedDict):
    text: str
    replies: list[Comment]


class ModernMove(typing_extensions.TypedDict):
    to: list[int]


class Colour(enum.Enum):
    RED = "red"


class Join(BaseModel):
    kind: Literal["join"]
    room: str


class Leave(BaseModel):
    kind: Literal["leave"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int


MOVE: dict[str, Any] = {"to": [1, 2], "fast": True}


@pytest.mark.parametrize(
    ("annotation", "data", "expected"),
    [
        (Post, {"room": "a", "text": "b"}, Post(room="a", text="b")),
        (Thread, {"posts": [{"room": "a", "text": "b"}]}, Thread(posts=[Post(room="a", text="b")])),
        (Point, {"x": 1}, Point(1)),
        (Move, MOVE, MOVE),
        (Search, {"words": "a"}, {"words": "a"}),
        (Search, {"words": "a", "limit": 5}, {"words": "a", "limit": 5}),
        (Filter, {"user": 5}, {"user": 5}),
        (Nested, {"move": MOVE, "searches": [{"words": "a"}]}, {"move": MOVE, "searches": [{"words": "a"}]}),
        (
            Comment,
            {"text": "a", "replies": [{"text": "b", "replies": []}]},
            {"text": "a", "replies": [{"text": "b", "replies": []}]},
        ),
        (ModernMove, {"to": [1]}, {"to": [1]}),
        (Move | None, MOVE, MOVE),
        (Move | None, None, None),
        (list[Move], [MOVE], [MOVE]),
        (dict[str, Move], {"a": MOVE}, {"a": MOVE}),
        (Annotated[Move, "a comment"], MOVE, MOVE),
        (int, 5, 5),
        (int, "5", 5),
        (float, 5, 5.0),
        (str, "x", "x"),
        (bool, True, True),
        (bytes, "x", b"x"),
        (list[int], [1, "2"], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (set[int], [1, 1, 2], {1, 2}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (list, [1, "a"], [1, "a"]),
        (dict, {"a": None}, {"a": None}),
        (Optional[int], None, None),  # noqa: UP045 - written so by many
        (Optional[int], 5, 5),  # noqa: UP045
        (Union[int, str], "a", "a"),  # noqa: UP007
        (int | None, None, None),
        (Literal["a", "b"], "b", "b"),
        (Annotated[int, Field(gt=0)], 5, 5),
        (Annotated[Join | Leave, Field(discriminator="kind")], {"kind": "leave"}, Leave(kind="leave")),
        (Colour, "red", Colour.RED),
        (UUID, str(UUID(int=5)), UUID(int=5)),
        (Decimal, "1.10", Decimal("1.10")),
        (dt.datetime, "2024-02-29T00:00:00Z", dt.datetime(2024, 2, 29, tzinfo=dt.UTC)),
        (None, None, None),
        (Any, {"as": "it is"}, {"as": "it is"}),
        (object, [1], [1]),
        (Annotated[Any, "a comment"], [1], [1]),
    ],
)
async def test_annotation_takes(annotation: Any, data: Any, expected: Any) -> None:
    result = await accept(annotation, data)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "data", "locations"),
    [
        (Post, {"room": "a", "text": "x" * 11}, [["text"]]),
        (Post, {"room": 5}, [["room"], ["text"]]),
        (Post, [], [[]]),
        (Post, None, [[]]),
        (Thread, {"posts": [{"room": "a", "text": "b"}, {"room": "a"}]}, [["posts", 1, "text"]]),
        (Point, {"y": 1}, [["x"]]),
        (Move, {"to": [1, "a"]}, [["to", 1], ["fast"]]),
        (Search, {"words": "a", "limit": "many"}, [["limit"]]),
        (Filter, {"room": "a"}, [["user"]]),
        (Nested, {"move": {"to": []}, "searches": [{}]}, [["move", "fast"], ["searches", 0, "words"]]),
        (Comment, {"text": "a", "replies": [{"text": "b"}]}, [["replies", 0, "replies"]]),
        (int, "five", [[]]),
        (int, None, [[]]),
        (int, 1.5, [[]]),
        (str, 5, [[]]),
        (list[int], [1, "a", None], [[1], [2]]),
        (list[int], {"a": 1}, [[]]),
        (dict[int, str], {"a": "b"}, [["a", "[key]"]]),
        (int | None, "a", [[]]),
        (int | bool, "a", [["int"], ["bool"]]),
        (Literal["a", "b"], "c", [[]]),
        (Annotated[int, Field(gt=0)], 0, [[]]),
        (Annotated[Join | Leave, Field(discriminator="kind")], {"kind": "join"}, [["join", "room"]]),
        (Annotated[Join | Leave, Field(discriminator="kind")], {"kind": "stay"}, [[]]),
        (Strict, {"n": 1, "more": 2}, [["more"]]),
        (Colour, "blue", [[]]),
        (UUID, "no", [[]]),
        (None, 0, [[]]),
    ],
)
async def test_annotation_refuses(annotation: Any, data: Any, locations: list[list[str | int]]) -> None:
    assert [item["loc"] for item in await refuse(annotation, data)] == locations


async def test_details_say_why_and_hold_nothing_of_the_data() -> None:
    (item,) = await refuse(Post, {"room": "a", "text": "secret" * 10})
    assert item == {"loc": ["text"], "msg": "String should have at most 10 characters", "type": "string_too_long"}


async def test_details_are_json_where_the_error_holds_an_exception() -> None:
    class Even(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def check(cls, value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

    assert await refuse(Even, {"n": 3}) == [{"loc": ["n"], "msg": "Value error, odd", "type": "value_error"}]


async def test_validation_leaves_the_given_values_alone() -> None:
    values = {**VALUES, "data": "5"}

    def handler(data: int) -> int:
        return data

    assert await Hook("event", handler)(THREADS, values) == 5
    assert values == {**VALUES, "data": "5"}


async def test_other_annotations_validate_nothing() -> None:
    def handler(client: int, data) -> object:  # type: ignore[no-untyped-def]
        return client, data

    assert await call("event", handler) == ("CLIENT", "DATA")


async def test_only_events_validate() -> None:
    def on_binary(client: Any, data: int) -> object:
        return data

    assert await call("binary", on_binary, data=b"bytes") == b"bytes"


async def test_a_positional_handler_validates_its_second_argument() -> None:
    def handler(sender: Any, post: Post) -> object:
        return sender, post

    assert await call("event", handler, data={"room": "a", "text": "b"}) == ("CLIENT", Post(room="a", text="b"))


async def test_a_keyword_handler_validates_its_data() -> None:
    def handler(*, data: Post, client: Any) -> object:
        return client, data

    assert await call("event", handler, data={"room": "a", "text": "b"}) == ("CLIENT", Post(room="a", text="b"))


async def with_client(client: Any) -> object:
    return client


async def usual(client: Any, data: Post) -> object:
    return client, data


async def renamed(sender: Any, post: Post) -> object:
    return sender, post


async def in_another_order(message: Message, data: Post, client: Any) -> object:
    return client, data, message


async def by_keyword(*, message: Message, client: Any) -> object:
    return client, message


async def mixed(client: Any, /, *, data: Post) -> object:
    return client, data


class Handler:
    async def __call__(self, client: Any, data: Post) -> object:
        return client, data


DIRECT = [
    with_client,
    usual,
    renamed,
    in_another_order,
    by_keyword,
    mixed,
    Handler(),
    functools.partial(usual),
]


@pytest.mark.parametrize("function", DIRECT)
async def test_a_direct_handler_begins_as_it_is_called(function: Callable[..., Any]) -> None:
    hook = Hook("event", function)
    assert hook.is_direct
    message = Message("post", {"room": "a", "text": "b"})
    values = {"client": "CLIENT", "message": message, "data": message.data}
    assert await hook.begin("CLIENT", message) == await hook(THREADS, values)


@pytest.mark.parametrize("function", [usual, mixed])
async def test_a_direct_handler_validates_before_it_begins(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidDataError) as caught:
        Hook("event", function).begin("CLIENT", Message("post", {"room": "a"}))
    assert [detail["loc"] for detail in caught.value.details] == [["text"]]


async def test_what_needs_more_than_a_call_is_not_direct() -> None:
    def plain(client: Any) -> None: ...

    async def asks_for_a_broker(client: Any, broker: Any) -> None: ...

    assert not Hook("event", plain).is_direct
    assert not Hook("event", asks_for_a_broker).is_direct
    assert not Hook("event", with_client, options=HandlerOptions(concurrent=True)).is_direct
    assert not Hook("refresh", usual).is_direct


async def test_variable_arguments_are_not_validated_as_something_else() -> None:
    assert await call("event", lambda *args: args) == ("CLIENT", "DATA")


async def test_a_default_is_for_python_and_not_for_clients() -> None:
    def handler(client: Any, data: int = 5) -> object:
        return data

    assert await call("event", handler, data="7") == 7
    with pytest.raises(InvalidDataError):
        await call("event", handler, data=None)


async def test_a_validation_error_of_the_handler_is_its_own() -> None:
    def handler(client: Any, data: dict[str, Any]) -> object:
        return Post(**data)

    with pytest.raises(ValueError, match="room") as caught:
        await call("event", handler, data={})
    assert not isinstance(caught.value, InvalidDataError)


async def test_a_type_local_to_the_function_that_defines_the_hook() -> None:
    class Local(BaseModel):
        n: int

    hooks = Hooks()

    @functools.partial(hooks.register_event, "e")
    async def handler(client: Any, data: Local) -> object:
        return data

    hook = hooks.handler("e")
    assert hook is not None
    assert await hook(THREADS, {**VALUES, "data": {"n": "5"}}) == Local(n=5)
    with pytest.raises(InvalidDataError):
        await hook(THREADS, {**VALUES, "data": {}})


async def test_a_local_type_in_a_class_of_handlers() -> None:
    class Local(BaseModel):
        n: int

    class Handlers:
        async def on_e(self, client: Any, data: list[Local] | None) -> object:
            return data

    hook = Hook("event", Handlers().on_e)
    assert await hook(THREADS, {**VALUES, "data": [{"n": 1}]}) == [Local(n=1)]
    assert await hook(THREADS, {**VALUES, "data": None}) is None


if typing.TYPE_CHECKING:
    OnlyForTypeCheckers = int


def test_an_annotation_that_cannot_be_resolved() -> None:
    def handler(client: Any, data: OnlyForTypeCheckers) -> None: ...

    def nested(client: Any, data: list[OnlyForTypeCheckers]) -> None: ...

    for function in (handler, nested):
        with pytest.raises(HookError, match="OnlyForTypeCheckers") as caught:
            Hook("event", function)
        assert function.__name__ in str(caught.value)


class SomethingElse:
    """A class that pydantic knows nothing of."""


class Unfinished(BaseModel):
    field: OnlyForTypeCheckers


@dataclasses.dataclass
class UnfinishedPoint:
    x: OnlyForTypeCheckers


@pytest.mark.parametrize(
    "annotation",
    [
        "NoSuchType",
        "list[NoSuchType]",
        "asyncio.NoSuchType",
        "two words",
        "typing.ClassVar[int]",
        5,
        SomethingElse,
        list[SomethingElse],
        Unfinished,
        list[Unfinished],
        UnfinishedPoint,
        Annotated[str, Field(pattern="(")],
    ],
    ids=[
        "unknown name",
        "unknown name inside",
        "unknown attribute",
        "no expression",
        "no type for a parameter",
        "a number",
        "a class without a schema",
        "a class without a schema inside",
        "unfinished model",
        "unfinished model inside",
        "unfinished dataclass",
        "constraint that cannot be",
    ],
)
def test_an_annotation_that_is_no_type(annotation: Any) -> None:
    def handler(client: Any, data: Any) -> None: ...

    handler.__annotations__ = {"data": annotation}
    with pytest.raises(HookError, match="handler"):
        Hook("event", handler)


@pytest.mark.parametrize(("annotation", "name"), [(Client, "client"), (Client[int], "client"), (Message, "message")])
def test_what_is_no_data_is_refused_as_its_annotation(annotation: Any, name: str) -> None:
    def handler(c: Any, d: Any) -> None: ...

    handler.__annotations__["d"] = annotation
    with pytest.raises(HookError, match=f"'d' in .*handler.* no client can send one; name the parameter '{name}'"):
        Hook("event", handler)


# --- parameters of a room


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (int, "7", 7),
        (str, "7", "7"),
        (float, "7.5", 7.5),
        (bool, "true", True),
        (UUID, str(UUID(int=5)), UUID(int=5)),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "b", "b"),
        (dt.date, "2024-02-29", dt.date(2024, 2, 29)),
        (dt.datetime, "2024-02-29T00:00:00Z", dt.datetime(2024, 2, 29, tzinfo=dt.UTC)),
        (Decimal, "1.10", Decimal("1.10")),
        (Annotated[int, Field(gt=0)], "7", 7),
        (Annotated[int, BeforeValidator(lambda text: int(text, 36))], "z", 35),
        (int, "-7", -7),
        (Any, "7", "7"),
    ],
)
async def test_a_parameter_of_a_room_is_what_its_annotation_says(annotation: Any, text: str, expected: Any) -> None:
    def hook(client: Any, chat_id: Any) -> object:
        return chat_id

    hook.__annotations__["chat_id"] = annotation
    result = await Hook("authorize", hook, ["chat_id"])(THREADS, {**VALUES, "room": "ROOM", "chat_id": text})
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        *[(int, "seven"), (UUID, "7"), (Colour, "blue"), (dt.date, "tomorrow"), (Annotated[int, Field(gt=0)], "0")],
        # What is written in another way would be another room of the same parameter.
        *[(int, text) for text in ("07", "+7", " 7", "7\n", "7.0", "1_0", "-0")],
        (Annotated[int, Field(gt=0)], "07"),
        *[(UUID, text) for text in (UUID(int=10).hex, str(UUID(int=10)).upper(), f"{{{UUID(int=10)}}}")],
        (Annotated[str, StringConstraints(strip_whitespace=True)], "a "),
        (Annotated[str, StringConstraints(to_lower=True)], "A"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_named(annotation: Any, text: str) -> None:
    def hook(client: Any, chat_id: Any) -> None: ...

    hook.__annotations__["chat_id"] = annotation
    with pytest.raises(InvalidParameterError, match="chat_id") as caught:
        await Hook("authorize", hook, ["chat_id"])(THREADS, {**VALUES, "room": "ROOM", "chat_id": text})
    assert caught.value.parameter == "chat_id"
    assert text not in str(caught.value)


async def test_data_is_validated_where_a_client_or_a_node_has_sent_it() -> None:
    def hook(data: int) -> int:
        return data

    for kind in ("room_event", "refresh", "node"):
        assert await call(kind, hook, data="5") == 5
        with pytest.raises(InvalidDataError):
            await call(kind, hook, data="five")


# --- where they run


async def test_async_runs_on_the_loop_and_plain_in_a_thread() -> None:
    async def on_loop() -> object:
        return threading.current_thread(), asyncio.get_running_loop()

    def in_thread() -> object:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return threading.current_thread()

    here = threading.current_thread()
    assert await call("connect", on_loop) == (here, asyncio.get_running_loop())
    assert await call("connect", in_thread) is not here


async def test_the_loop_goes_on_while_a_plain_one_runs() -> None:
    entered, release = threading.Event(), threading.Event()

    def blocking(data: int) -> int:
        entered.set()
        assert release.wait(DEADLINE)
        return data

    task = asyncio.ensure_future(call("event", blocking, data=5))
    assert await asyncio.to_thread(entered.wait, DEADLINE)
    assert not task.done()
    release.set()
    assert await task == 5


async def test_no_more_threads_than_the_limiter_has() -> None:
    limiter = ThreadPoolExecutor(2)
    running = 0
    most = 0
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=DEADLINE)

    def hook() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    registered = Hook("connect", hook)
    await asyncio.gather(*(registered(limiter, VALUES) for _ in range(6)))
    assert most == 2


async def test_exceptions_pass() -> None:
    async def fail() -> None:
        raise KeyError("async")

    def fail_plainly() -> None:
        raise KeyError("plain")

    with pytest.raises(KeyError, match="async"):
        await call("connect", fail)
    with pytest.raises(KeyError, match="plain"):
        await call("connect", fail_plainly)


@pytest.mark.parametrize("by_scope", [False, True])
async def test_a_cancelled_thread_is_left_behind(by_scope: bool) -> None:
    entered, release = threading.Event(), threading.Event()
    scope = CancelScope()

    def hook() -> None:
        entered.set()
        release.wait(DEADLINE)

    async def run() -> None:
        with scope:
            await call("connect", hook)

    task = asyncio.ensure_future(run())
    try:
        assert await asyncio.to_thread(entered.wait, DEADLINE)
        if by_scope:
            scope.cancel()
        else:
            task.cancel()
        done, _ = await asyncio.wait([task], timeout=DEADLINE / 2)
        assert done, "it does not wait for a thread that cannot be stopped"
        assert task.cancelled() is not by_scope
    finally:
        release.set()
