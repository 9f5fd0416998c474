"""Annotations: turns the annotation of a parameter into a validator of data. Knows nothing of hooks."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired, Required

import msgspec
import typing_extensions
from pydantic import TypeAdapter

from velocity_ws.errors import HookError
from velocity_ws.hooks.injected import name_of_value

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = [
    "annotations_of",
    "names_in",
    "parts_of",
    "resolved",
    "return_annotation",
    "signature_of",
    "unwrap",
    "validator",
]


def unwrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the innermost function: inside of partials, decorators with ``__wrapped__``, and callable objects."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function):
            return function
        else:
            function = type(function).__call__


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Read the signature of a function, even if its annotations name what is imported for type checkers alone.

    Raises:
        TypeError: ``function`` cannot be called.
        ValueError: it has no signature that can be read.
    """
    if sys.version_info >= (3, 14):  # where annotations are evaluated when they are read
        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Read the annotations of a function as they are written; a name that is not defined is a reference to it."""
    if sys.version_info >= (3, 14):
        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    found: dict[str, Any] = getattr(function, "__annotations__", {})
    return found


def resolved(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Resolve the annotations of a function, as far as they can be.

    Returns:
        The resolved ones, by parameter; and why the others could not be.
    """
    function = unwrap(function)
    local_names = _locals_of_definition(function)
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for parameter in annotations_of(function):
        try:
            found[parameter] = _annotation(function, parameter, local_names)
        except Exception as error:  # evaluating an annotation may raise anything
            problems[parameter] = str(error)
    return found, problems


def return_annotation(function: Callable[..., Any]) -> Any:
    """Resolve what a function says it returns; ``inspect.Parameter.empty`` where it says nothing.

    Raises:
        Exception: what evaluating it raises.
    """
    local_names = _locals_of_definition(function)
    annotation = _annotation(function, "return", local_names)
    return _modern(annotation, local_names, {}) if sys.version_info < (3, 12) else annotation


def validator(function: Callable[..., Any], parameter: str, name: str) -> tuple[Callable[[Any], Any], Any] | None:
    """Build the validator of a parameter.

    Args:
        function: the hook.
        parameter: the name of its parameter.
        name: the name of the hook in errors.

    Returns:
        A function that validates a decoded JSON value, and pydantic's schema for it; ``None`` if the annotation
        allows every value. The function raises pydantic's ``ValidationError``.

    Raises:
        HookError: the annotation cannot be resolved, or is not a type.
    """
    function = unwrap(function)
    local_names = _locals_of_definition(function)
    try:
        annotation = _annotation(function, parameter, local_names)
        if annotation in (inspect.Parameter.empty, Any, object):
            return None
        if sys.version_info < (3, 12):
            annotation = _modern(annotation, local_names, {})
        adapter = _adapter(annotation)
    except Exception as error:  # evaluating an annotation and building a schema may raise anything
        raise HookError(
            f"the annotation of {parameter!r} in {name} cannot validate data: {error}. "
            "It must be a type that pydantic knows, and that the hook's module can see"
        ) from error
    if not adapter.pydantic_complete:
        raise HookError(f"the annotation of {parameter!r} in {name} has a field whose type is not defined")
    schema = adapter.core_schema
    if not _asks_for_json(schema):
        # Without the adapter's own method, which passes on eight options that nobody gives, in 0.13 µs of an echo's 11.
        return adapter.validator.validate_python, schema
    return lambda value: adapter.validate_json(_encode(value)), schema


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    if value := name_of_value(annotation):
        raise TypeError(f"no client can send one; name the parameter {value!r} to get it")
    return TypeAdapter(annotation)


_encode = msgspec.json.Encoder().encode


def _asks_for_json(schema: Any) -> bool:
    """Whether pydantic validates JSON in another way than the decoded value, anywhere in a schema.

    In strict mode a datetime may be a string in JSON only; and a type may have a schema for each.
    """
    for part in parts_of(schema):
        if isinstance(part, dict):
            if part.get("strict") is True or part.get("val_json_bytes", "utf8") != "utf8":
                return True
            if part.get("type") == "json-or-python":
                return True
    return False


def names_in(schema: Any) -> set[str]:
    """Collect the strings in a schema, which include all names of fields: other names were chosen by a client."""
    return {part for part in parts_of(schema) if isinstance(part, str)}


def parts_of(schema: Any) -> Iterator[Any]:
    """All parts of a schema of pydantic, each once."""
    seen: set[int] = set()
    rest = [schema]
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            rest += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            rest += part


def _annotation(function: Callable[..., Any], parameter: str, local_names: dict[str, Any]) -> Any:
    # Only this one is resolved: what the others name may be imported for type checkers alone.
    annotations = annotations_of(function)
    if parameter not in annotations:
        return inspect.Parameter.empty
    alone = types.SimpleNamespace(__annotations__={parameter: annotations[parameter]})
    global_names = getattr(function, "__globals__", {})
    hints = typing.get_type_hints(alone, global_names, local_names, include_extras=True)
    return hints[parameter]


def _locals_of_definition(function: Callable[..., Any]) -> dict[str, Any]:
    # Annotations that are strings (``from __future__ import annotations``) may name a class local to the function in
    # which the hook is being defined; that function is still on the stack, as it is what registers the hook.
    names = getattr(function, "__globals__", None)
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals is names:
            return {} if frame.f_locals is names else dict(frame.f_locals)
    return {}


def _modern(annotation: Any, local_names: dict[str, Any], known: dict[Any, Any]) -> Any:
    """Replace each ``typing.TypedDict`` in an annotation by one of typing_extensions.

    Before Python 3.12 pydantic takes only those, as the others do not keep all that it needs.
    """
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        if annotation not in known:
            known[annotation] = _modern_typed_dict(annotation, local_names, known)
        return known[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_modern(args[0], local_names, known), *args[1:])]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, [_modern(arg, local_names, known) for arg in args])
    if isinstance(annotation, types.GenericAlias) and origin is not None:
        return origin[tuple(_modern(arg, local_names, known) for arg in args)]
    return annotation


def _modern_typed_dict(typed_dict: Any, local_names: dict[str, Any], known: dict[Any, Any]) -> Any:
    hints = typing.get_type_hints(typed_dict, localns=local_names, include_extras=True)
    required = {key: _is_required(hint, key in typed_dict.__required_keys__) for key, hint in hints.items()}
    fields = {key: (Required if required[key] else NotRequired)[Any] for key in hints}
    modern = typing_extensions.TypedDict(typed_dict.__name__, fields)  # type: ignore[misc]
    known[typed_dict] = modern  # before its fields, as one of them may be of this very type
    modern.__annotations__ = {key: _modern(_bare(hint), local_names, known) for key, hint in hints.items()}
    return modern


def _is_required(hint: Any, by_default: bool) -> bool:
    # Where annotations are strings, the class itself does not know what they say.
    return {Required: True, NotRequired: False}.get(typing.get_origin(hint), by_default)


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (Required, NotRequired) else hint
