"""HTTPException and its kin: what they say to a client, in a handshake, a handler, and a dependency of either."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus

from tests.support import SERVER_KINDS, ServerKind, running, settings
from velocity_ws import Broker, Client, HistoryError, InvalidHeaderError, Reject
from velocity_ws.sessions.web_errors import client_error_of, goodbye_of, reject_of

kinds = pytest.mark.parametrize("kind", SERVER_KINDS)


@pytest.mark.parametrize("depends", [False, True])
@kinds
async def test_a_handshake_is_answered_with_the_status_and_the_headers(kind: ServerKind, depends: bool) -> None:
    broker = Broker(settings())

    async def refuse(connection: HTTPConnection) -> None:
        raise HTTPException(401, "who are you", {"WWW-Authenticate": 'Basic realm="chat"', "Content-Type": "x/y"})

    if depends:
        broker.authenticate(hook_of(refuse))
    else:
        broker.authenticate(refuse_request)

    async with running(broker, kind) as address:
        with pytest.raises(InvalidStatus) as refused:
            async with address.connect():
                pass
    response = refused.value.response
    assert response.status_code == 401
    assert response.body == b"who are you"
    assert response.headers["WWW-Authenticate"] == 'Basic realm="chat"'
    assert response.headers.get_all("Content-Type") == ["text/plain; charset=utf-8"]
    assert broker.get_stats().errors == 0


def hook_of(call: Any) -> Any:
    async def authenticate(nobody: None = Depends(call)) -> None: ...

    return authenticate


async def refuse_request(request: HTTPConnection) -> None:
    raise StarletteHTTPException(401, "who are you", {"WWW-Authenticate": 'Basic realm="chat"', "Content-Type": "x/y"})


@pytest.mark.parametrize("headers", [{"x": "a\r\nset-cookie: b"}, {"x": "\u20ac"}, {"a b": "c"}, {"Upgrade": "h2c"}])
@pytest.mark.parametrize("error", [HTTPException, Reject])
async def test_a_header_that_cannot_be_sent_is_a_failure_of_the_server(error: Any, headers: dict[str, str]) -> None:
    broker = Broker(settings())
    errors: list[Exception] = []

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> None:
        raise error(status_code=403, headers=headers) if error is HTTPException else error(headers=headers)

    @broker.on_error
    async def failed(client: Client, error: Exception) -> None:
        errors.append(error)

    async with running(broker, "ours") as address:
        with pytest.raises(InvalidStatus) as refused:
            async with address.connect():
                pass
    assert refused.value.response.status_code == 500
    assert not headers.keys() & dict(refused.value.response.headers.raw_items()).keys()
    assert [type(each) for each in errors] == [InvalidHeaderError]


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (HTTPException(404), 404, b"Not Found"),
        (HTTPException(422, {"field": "token"}), 422, b'{"field": "token"}'),
        (HTTPException(307, "log in", {"Location": "/login"}), 403, b"log in"),
        (HistoryError("load it anew", "evicted"), 422, b"load it anew"),
        (WebSocketException(1008, "not you"), 403, b"not you"),
    ],
)
async def test_other_refusals_of_a_handshake(error: Exception, status: int, body: bytes) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> None:
        raise error

    async with running(broker) as address:
        with pytest.raises(InvalidStatus) as refused:
            async with address.connect():
                pass
    assert (refused.value.response.status_code, refused.value.response.body) == (status, body)


async def test_a_websocket_exception_with_a_code_of_the_application_closes_with_it() -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> None:
        raise WebSocketException(4401, "log in")

    async with running(broker) as address, address.connect() as peer:
        assert await peer.closed() == (4401, "log in")


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (HTTPException(401, "log in"), {"code": "UNAUTHORIZED", "message": "log in"}),
        (HTTPException(403), {"code": "FORBIDDEN", "message": "Forbidden"}),
        (HTTPException(404, "no such chat"), {"code": "NOT_FOUND", "message": "no such chat"}),
        (HTTPException(409, "taken"), {"code": "CONFLICT", "message": "taken"}),
        (HTTPException(422, "wrong"), {"code": "INVALID_DATA", "message": "wrong"}),
        (HTTPException(429, "slower"), {"code": "RATE_LIMITED", "message": "slower"}),
        (HTTPException(418, "tea"), {"code": "HTTP_418", "message": "tea"}),
        (HTTPException(503, "later"), {"code": "HTTP_503", "message": "later"}),
        (
            HTTPException(409, {"at": 7}),
            {"code": "CONFLICT", "message": "Conflict", "detail": {"at": 7}},
        ),
        (WebSocketException(1008, "not yours"), {"code": "FORBIDDEN", "message": "not yours"}),
        (Reject("log in", code=4401), {"code": "UNAUTHORIZED", "message": "log in"}),
        (Reject("log in", 401), {"code": "UNAUTHORIZED", "message": "log in"}),
        (Reject("taken", 409), {"code": "CONFLICT", "message": "taken"}),
        (Reject(), {"code": "FORBIDDEN", "message": ""}),
        (Reject("banned", code=4999), {"code": "FORBIDDEN", "message": "banned"}),
        (
            HistoryError("the key is used", "conflict"),
            {"code": "INVALID_DATA", "message": "the key is used", "reason": "conflict"},
        ),
    ],
)
async def test_in_a_handler_a_guard_and_a_dependency_it_is_an_answer(error: Exception, data: dict[str, Any]) -> None:
    broker = Broker(settings())

    async def fail(client: Client) -> None:
        raise error

    @broker.on_message
    async def guard(client: Client, message: Any) -> None:
        if message.event == "guarded":
            raise error

    @broker.on("handled")
    def handled(client: Client) -> None:
        raise error

    @broker.on("depending")
    async def depending(nothing: None = Depends(fail)) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        for event in ("guarded", "handled", "depending"):
            answer = await peer.request(event)
            assert (answer["event"], answer["data"]) == ("error", data), event
    assert broker.get_stats().errors == 0


async def test_a_detail_without_a_json_form_is_a_failure_of_the_server() -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def handler(client: Client) -> None:
        raise HTTPException(409, object())

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x"))["data"]["code"] == "INTERNAL_ERROR"


async def test_a_call_of_a_history_that_is_not_there_is_a_failure_of_the_server() -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def handler(client: Client) -> None:
        raise HistoryError("no such room has a history")

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x"))["data"]["code"] == "INTERNAL_ERROR"
    assert broker.get_stats().errors == 1


async def test_a_client_that_on_connect_does_not_want_is_told_by_a_code_that_a_browser_can_read() -> None:
    broker = Broker(settings())
    later = []

    async def member(client: Client) -> None:
        raise HTTPException(403, "members only")

    @broker.on_connect
    async def connect(client: Client, nothing: Annotated[None, Depends(member)]) -> None: ...

    @broker.on_connect
    async def second(client: Client) -> None:
        later.append(client)

    async with running(broker) as address, address.connect() as peer:
        assert await peer.closed() == (4403, "members only")
    assert later == []
    assert broker.get_stats().errors == 0


@pytest.mark.parametrize(
    ("reject", "goodbye"),
    [(Reject("log in", code=4401), (4401, "log in")), (Reject("no", 402), (4402, "no")), (Reject(), (4403, ""))],
)
async def test_so_is_one_that_on_connect_rejects(reject: Reject, goodbye: tuple[int, str]) -> None:
    broker = Broker(settings())

    @broker.on_connect
    async def connect(client: Client) -> None:
        raise reject

    async with running(broker) as address, address.connect() as peer:
        assert await peer.closed() == goodbye
    assert broker.get_stats().errors == 0


async def test_a_check_of_tokens_that_rejects_serves_the_handler_that_logs_in_and_authorize() -> None:
    broker = Broker(settings())

    def check(token: str) -> str:
        if token != "good":
            raise Reject("log in", code=4401)
        return "ann"

    @broker.on("login")
    async def login(client: Client, data: str) -> None:
        await client.set_user(check(data))

    @broker.rooms("chat:{token}").authorize
    async def may_enter(client: Client, token: str) -> bool:
        return bool(check(token) == client.user)

    async with running(broker) as address, address.connect() as peer:
        refusal = {"code": "UNAUTHORIZED", "message": "log in"}
        assert (await peer.request("login", "bad"))["data"] == refusal
        assert (await peer.request("join", {"room": "chat:bad"}))["data"] == refusal
        assert (await peer.request("login", "good"))["event"] == "reply"
        assert (await peer.request("join", {"room": "chat:good"}))["event"] == "reply"
    assert broker.get_stats().errors == 0


def test_a_status_that_is_no_number_is_a_fault_of_the_application() -> None:
    error = HTTPException("401", "log in")  # type: ignore[arg-type]
    assert client_error_of(error) is None
    assert reject_of(error) is None
    assert goodbye_of(error) is None


def cyclic() -> dict[str, Any]:
    detail: dict[str, Any] = {}
    detail["itself"] = detail
    return detail


@pytest.mark.parametrize("detail", [cyclic(), {(1, 2): "no key of JSON"}])
def test_a_detail_without_a_json_form_is_told_as_it_is_written(detail: Any) -> None:
    error = HTTPException(401, detail)
    refusal, goodbye = reject_of(error), goodbye_of(error)
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (401, repr(detail))
    assert goodbye == (4401, repr(detail))
