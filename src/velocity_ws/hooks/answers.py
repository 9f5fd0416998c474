"""Answers: a handler's return annotation validates and filters what it returns. Knows no hook, and sends nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from velocity_ws.hooks.annotations import parts_of, return_annotation, unwrap
from velocity_ws.hooks.injected import name_of_value
from velocity_ws.logs import get_logger

__all__ = ["InvalidAnswerError", "answering"]

log = get_logger("velocity_ws.hooks")

MAX_DESCRIBED = 5
"""Problems that the error names."""
_STRUCTURED = {"model", "dataclass", "typed-dict"}
"""The types of schemas that have fields, and so leave out what is not one."""
_ITEMS = {"list": "items_schema", "set": "items_schema", "frozenset": "items_schema", "dict": "values_schema"}


class InvalidAnswerError(TypeError):
    """A handler has returned what its return annotation does not allow, which is its own failure."""

    def __init__(self, name: str, error: ValidationError) -> None:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        more = "; …" if len(problems) > MAX_DESCRIBED else ""
        said = "; ".join(problems[:MAX_DESCRIBED])
        super().__init__(f"{name} returned what its return annotation does not allow: {said}{more}")


def answering(function: Callable[..., Any], name: str, *, is_async: bool) -> Callable[..., Any]:
    """Let what a handler returns pass through its return annotation, as FastAPI does.

    Models, dataclasses, typed dicts, and what holds some, are read from attributes too, as of rows of an ORM, and
    become the JSON of what was annotated. Other types are validated; not so what may be anything: ``Any``, ``dict``,
    ``list[Any]``. What pydantic does not know is left as it is.

    Args:
        function: the handler.
        name: its name in errors.
        is_async: whether it is a coroutine function; if not, all of it runs in its thread.

    Returns:
        A function that does both; the handler itself where the annotation says nothing.
    """
    try:
        annotation = return_annotation(unwrap(function))
    except Exception as error:  # evaluating an annotation may raise anything
        log.warning("the return annotation of %s cannot be resolved (%s), and so filters nothing", name, error)
        return function
    answer = None if name_of_value(annotation) else _answer(annotation, name)
    if answer is None:
        return function
    if is_async:

        @functools.wraps(function)
        async def answered(*args: Any, **kwargs: Any) -> Any:
            return answer(await function(*args, **kwargs))

        return answered

    @functools.wraps(function)
    def answered_in_thread(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return _later(result, answer) if inspect.isawaitable(result) else answer(result)

    return answered_in_thread


async def _later(result: Any, answer: Callable[[Any], Any]) -> Any:
    return answer(await result)


def _answer(annotation: Any, name: str) -> Callable[[Any], Any] | None:
    if annotation in (inspect.Parameter.empty, None, type(None), Any, object):
        return None
    try:
        adapter = TypeAdapter(annotation)
        schema = adapter.core_schema
    except Exception:  # no type of pydantic's: a struct of msgspec, a protocol, whatever is encoded as it is
        return None
    is_structured = any(isinstance(part, dict) and part.get("type") in _STRUCTURED for part in parts_of(schema))
    if not is_structured and any(_is_anything(part) for part in parts_of(schema)):
        return None

    def answer(result: Any) -> Any:
        try:
            valid = adapter.validate_python(result, from_attributes=True)
        except ValidationError as error:
            raise InvalidAnswerError(name, error) from None
        if not is_structured:
            return valid
        return msgspec.Raw(adapter.dump_json(valid, by_alias=True, warnings=False))

    return answer


def _is_anything(part: Any) -> bool:
    """Whether a schema, or its items, may be whatever there is: to validate such a value would only copy it."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return kind in ("any", "is-instance") or (kind in _ITEMS and _ITEMS[kind] not in part)
