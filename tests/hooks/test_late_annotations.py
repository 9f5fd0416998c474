"""What is imported for type checkers alone may be named in every hook, however its annotations are evaluated.

With the future import they are strings. Without it, Python 3.14 and newer evaluate them when somebody asks for them.
"""

from __future__ import annotations

import sys
import types

import pytest

from velocity_ws import Broker, HookError, Settings

FUTURE = "from __future__ import annotations\n"
HOOKS = """
from typing import TYPE_CHECKING
from pydantic import BaseModel

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from velocity_ws import Client, Close, Message

def register(broker):
    class Local(BaseModel):
        n: int

    @broker.authenticate
    async def check(request: HTTPConnection) -> Client | None: ...
    @broker.on_connect
    async def came(client: Client) -> None: ...
    @broker.on_message
    def saw(client: Client, message: Message) -> None: ...
    @broker.on("integer")
    async def integer(client: Client, data: int) -> Message: ...
    @broker.on("model")
    async def model(client: Client, data: list[Local] | None, message: Message) -> None: ...
    @broker.on("keyword")
    def keyword(*, data: "dict[str, int]", client: Client) -> None: ...
    @broker.on("nothing")
    async def nothing(client: Client, data) -> None: ...
    class Handlers:
        async def method(self, client: Client, data: Local) -> Client: ...
    broker.on("method")(Handlers().method)
    @broker.on_binary
    async def binary(client: Client, data: bytes) -> None: ...
    @broker.on_join
    async def joined(client: Client, room: str) -> None: ...
    @broker.on_leave
    async def left(client: Client, room: str) -> None: ...
    @broker.on_error
    async def failed(client: Client, error: BaseException) -> None: ...
    @broker.on_disconnect
    def gone(client: Client, close: Close) -> None: ...
"""
DATA = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somewhere import Missing

def register(broker):
    @broker.on("missing")
    async def handler(client, data: {annotation}) -> None: ...
"""

late = pytest.mark.skipif(sys.version_info < (3, 14), reason="they are evaluated at once")
evaluations = pytest.mark.parametrize("future", [FUTURE, pytest.param("", marks=late)], ids=["as strings", "late"])


def register(source: str) -> Broker:
    module = types.ModuleType("hooks_of_an_application")
    sys.modules[module.__name__] = module
    broker = Broker(Settings(_env_file=None))
    try:
        exec(source, vars(module))
        module.register(broker)
    finally:
        del sys.modules[module.__name__]
    return broker


@evaluations
def test_every_hook_may_name_what_is_not_there(future: str) -> None:
    broker = register(future + HOOKS)
    hooks = broker.node.dispatcher._hooks
    assert all(hooks.handler(event) for event in ("integer", "model", "keyword", "nothing", "method"))


@evaluations
@pytest.mark.parametrize("annotation", ["Missing", "list[Missing]", "Missing | None", '"Missing"'])
def test_the_type_of_data_has_to_be_there_and_is_named(future: str, annotation: str) -> None:
    with pytest.raises(HookError, match="Missing") as caught:
        register(future + DATA.format(annotation=annotation))
    assert "'data' in register.<locals>.handler" in str(caught.value)


@evaluations
def test_message_is_still_the_message(future: str) -> None:
    with pytest.raises(HookError, match="name it 'data'"):
        register(future + 'def register(broker):\n    @broker.on("x")\n    def x(client, message: Missing): ...\n')
