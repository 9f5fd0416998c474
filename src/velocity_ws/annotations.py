"""From the annotation of a hook's parameter to what validates it. Knows nothing of hooks."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NotRequired, Required

import typing_extensions
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from velocity_ws.errors import HookError

__all__ = ["validator"]


def validator(function: Callable[..., Any], parameter: str, name: str) -> TypeAdapter[Any] | None:
    """What validates a parameter; ``None`` where its annotation allows everything.

    Raises:
        HookError: the annotation cannot be resolved, or is no type.
    """
    annotation = _annotation(inspect.unwrap(function), parameter, name)
    if annotation in (inspect.Parameter.empty, Any, object):
        return None
    try:
        return TypeAdapter(_modern(annotation) if sys.version_info < (3, 12) else annotation)
    except PydanticUserError as error:
        raise HookError(f"the annotation of {parameter!r} in {name} cannot validate data: {error.message}") from None


def _annotation(function: Callable[..., Any], parameter: str, name: str) -> Any:
    try:
        hints = typing.get_type_hints(function, localns=_locals_of_definition(function), include_extras=True)
    except NameError as error:
        raise HookError(
            f"an annotation of {name} cannot be resolved: {error}. Define or import the type in the hook's module"
        ) from None
    return hints.get(parameter, inspect.Parameter.empty)


def _locals_of_definition(function: Callable[..., Any]) -> dict[str, Any]:
    # Annotations that are strings (``from __future__ import annotations``) may name a class local to the function in
    # which the hook is being defined; that function is still on the stack, as it is what registers the hook.
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals is names:
            return {} if frame.f_locals is names else dict(frame.f_locals)
    return {}


def _modern(annotation: Any) -> Any:
    """The annotation with each ``typing.TypedDict`` in it as one of typing_extensions.

    Before Python 3.12 pydantic takes only those, as the others do not keep all it needs of nested ones.
    """
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        fields = {
            key: (Required if key in annotation.__required_keys__ else NotRequired)[_modern(_bare(hint))]
            for key, hint in typing.get_type_hints(annotation, include_extras=True).items()
        }
        return typing_extensions.TypedDict(annotation.__name__, fields)  # type: ignore[operator]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_modern(args[0]), *args[1:])]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, [_modern(arg) for arg in args])
    if isinstance(annotation, types.GenericAlias) and origin is not None:
        return origin[tuple(_modern(arg) for arg in args)]
    return annotation


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (Required, NotRequired) else hint
