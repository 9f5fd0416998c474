"""What is used of FastAPI: its graph of dependencies, and its reading of headers, queries and cookies. Calls no hook.

FastAPI is never imported here before the application has imported it: where its ``Depends`` stands, it is there. What
is not documented by FastAPI is used in this module alone, and `tests/hooks/test_fastapi.py` looks that it is there.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter
from starlette.requests import HTTPConnection

from velocity_ws.errors import HookError

__all__ = ["Injected", "graph_of", "handshake_errors", "injected", "marked", "read", "schema_of", "scopes_of"]

PARTS = ("path", "query", "header", "cookie")
"""Where in a handshake a parameter of a dependency may stand, as FastAPI names it."""

Injected = tuple[str, Any, Any]
"""A parameter that a library fills: its name, its annotation, and its default."""


def injected(parameter: inspect.Parameter, annotation: Any, hook: str, *, is_ours: bool) -> Injected | None:
    """Decide whether a parameter of a hook is filled by dependencies, or from the handshake.

    Args:
        parameter: the parameter.
        annotation: its annotation, resolved.
        hook: the name of the hook in errors.
        is_ours: whether its name is that of a value that the hook gets from us; only ``Depends`` comes before that.

    Raises:
        HookError: it is a ``Depends`` of a library that is not used.
    """
    annotation = getattr(annotation, "__value__", annotation)  # of PEP 695's ``type Session = Annotated[…]``
    params = sys.modules.get("fastapi.params")
    for mark in _marks(annotation, parameter.default):
        if params is not None and isinstance(mark, params.Depends | params.Param):
            if is_ours and not isinstance(mark, params.Depends):
                continue
            return parameter.name, annotation, parameter.default
        kind = type(mark)
        if kind.__name__ in ("Depends", "Dependant", "Security") and not kind.__module__.startswith("velocity_ws"):
            raise HookError(
                f"{hook} has a {kind.__name__} of {kind.__module__.partition('.')[0]} for {parameter.name!r}, which "
                "nothing here resolves: pip install 'velocity-ws[fastapi]', and use fastapi.Depends; no application of "
                "FastAPI is needed"
            )
    return None


def _marks(annotation: Any, default: Any) -> list[Any]:
    annotation = getattr(annotation, "__value__", annotation)
    return [default, *(get_args(annotation)[1:] if get_origin(annotation) is Annotated else ())]


def marked(call: Callable[..., Any]) -> set[str]:
    """The parameters of a dependency that say where they come from, as ``Query()`` does; FastAPI guesses the others."""
    signature = importlib.import_module("fastapi.dependencies.utils").get_typed_signature(call)
    param = sys.modules["fastapi.params"].Param
    return {
        parameter.name
        for parameter in signature.parameters.values()
        if any(isinstance(mark, param) for mark in _marks(parameter.annotation, parameter.default))
    }


def graph_of(parameters: Iterable[Injected], room_parameters: Sequence[str], hook: str) -> Any:
    """Let FastAPI read the dependencies of a hook.

    Args:
        parameters: those of the hook's parameters that are not ours.
        room_parameters: names that stand in the pattern of a kind of rooms, as in a path.
        hook: the name of the hook in errors.

    Returns:
        FastAPI's ``Dependant``. It has no call of its own; its ``dependencies`` are those of the hook.

    Raises:
        HookError: FastAPI cannot use one of them.
    """

    def root() -> None: ...

    keyword = inspect.Parameter.KEYWORD_ONLY
    vars(root)["__signature__"] = inspect.Signature(
        [inspect.Parameter(name, keyword, default=default, annotation=type_) for name, type_, default in parameters]
    )
    return dependant(root, room_parameters, hook)


def dependant(call: Callable[..., Any], room_parameters: Sequence[str], hook: str) -> Any:
    """Let FastAPI read one callable, and all that it depends on; see `graph_of`."""
    utils = importlib.import_module("fastapi.dependencies.utils")
    path = "/" + "/".join(f"{{{name}}}" for name in room_parameters)
    try:
        return utils.get_dependant(path=path, call=call)
    except Exception as error:  # an assertion, an annotation that cannot be resolved, a type without a schema
        raise HookError(f"a dependency of {hook} cannot be used: {error}") from error


def schema_of(field: Any) -> Any:
    """Pydantic's schema of what a field of FastAPI's takes."""
    info = field.field_info
    type_: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return TypeAdapter(type_).core_schema


def scopes_of(node: Any) -> list[str]:
    """The scopes that ``Security`` asks for, from the hook down to a ``Dependant``."""
    scopes = getattr(node, "security_scopes", None)  # before FastAPI 0.123
    if scopes is None:
        scopes = [*(node.parent_oauth_scopes or ()), *(node.own_oauth_scopes or ())]
    return list(dict.fromkeys(scopes))


def read(fields: Mapping[str, list[Any]], connection: HTTPConnection, path: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Read parameters from a handshake.

    Args:
        fields: FastAPI's fields, by the part of the handshake.
        connection: the handshake.
        path: the parameters of the path, and of the room.

    Returns:
        The values by name; and FastAPI's errors.
    """
    take = sys.modules["fastapi.dependencies.utils"].request_params_to_args
    values: dict[str, Any] = {}
    errors: list[Any] = []
    for part, of_part in fields.items():
        received: Any = path
        if part == "query":
            received = connection.query_params
        elif part == "header":
            received = connection.headers
        elif part == "cookie":
            received = connection.cookies
        found, wrong = take(of_part, received)
        values |= found
        errors += wrong
    return values, errors


def handshake_errors(errors: Iterable[Any]) -> list[dict[str, Any]]:
    """FastAPI's errors without what was sent, which may be a token."""
    return [{"loc": list(error["loc"]), "msg": error["msg"], "type": error["type"]} for error in errors]
