"""What is used of FastAPI without being documented there is what it is taken for, in the version that is installed."""

from __future__ import annotations

import inspect
from typing import Annotated

from fastapi import Depends, Header, params
from fastapi.dependencies import utils

from velocity_ws.hooks.fastapi import PARTS, marked, schema_of, scopes_of


def below(x_token: Annotated[str, Header()]) -> str:
    return x_token


def root(value: Annotated[str, Depends(below, use_cache=False)]) -> None: ...


def test_the_graph_has_what_is_read_of_it() -> None:
    node = utils.get_dependant(path="/{room}", call=root)
    (of_value,) = node.dependencies
    assert (of_value.name, of_value.call, of_value.use_cache, of_value.dependencies) == ("value", below, False, [])
    assert [field.name for field in of_value.header_params] == ["x_token"]
    assert of_value.header_params[0].field_info.annotation is str
    for part in (*PARTS, "body"):
        assert isinstance(getattr(node, f"{part}_params"), list)
    for name in ("request", "websocket", "http_connection", "response", "background_tasks", "security_scopes"):
        assert getattr(node, f"{name}_param_name") is None
    assert scopes_of(of_value) == []
    assert schema_of(of_value.header_params[0])["type"] == "str"


def test_parameters_are_read_by_a_function_of_fields_and_of_what_was_received() -> None:
    assert list(inspect.signature(utils.request_params_to_args).parameters) == ["fields", "received_params"]
    assert list(inspect.signature(utils.get_typed_signature).parameters) == ["call"]
    assert marked(below) == {"x_token"}
    assert marked(lambda q: q) == set()
    assert issubclass(params.Security, params.Depends)
    assert issubclass(params.Header, params.Param)
