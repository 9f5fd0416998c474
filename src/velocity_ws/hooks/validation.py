"""Validation: what a client chose and an annotation does not allow, as exceptions and for the log. Knows no hook."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticKnownError

from velocity_ws.hooks.annotations import names_in
from velocity_ws.logs import printable

__all__ = [
    "InvalidDataError",
    "InvalidHandshakeError",
    "InvalidParameterError",
    "describe_problems",
    "is_written_in_one_way",
]

MAX_DETAILS = 50
"""Problems that an ``INVALID_DATA`` lists; if there are more, it tells only their number."""
MAX_DESCRIBED = 5
"""Problems that one line of the log names."""
_WRITTEN_IN_ONE_WAY = frozenset({"int", "str", "uuid"})
"""The types, as pydantic's schemas call them, of parameters that stand in a room's name as Python writes them.

Were ``chat:07`` a room of its own, who is put out of ``chat:7`` could stay there, and go on speaking to the same chat.
"""


class InvalidDataError(Exception):
    """The annotation of ``data`` does not allow what a client sent; becomes the answer ``INVALID_DATA``.

    Attributes:
        details: for each problem ``loc`` (a list of keys and indices), ``msg`` and ``type``, as pydantic has them.
    """

    def __init__(self, error: ValidationError) -> None:
        super().__init__(f"{error.error_count()} problems")
        self.details: list[dict[str, Any]]
        if error.error_count() > MAX_DETAILS:
            # To list them costs far more than to find them, and a client chooses how many there are.
            self.details = [{"loc": [], "msg": f"{error.error_count()} problems", "type": "too_many_problems"}]
            return
        self.details = [
            {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]


class InvalidParameterError(Exception):
    """The annotation of a parameter does not allow what stands in a room's name: there is no such room.

    Attributes:
        parameter: the name of the parameter.
    """

    def __init__(self, parameter: str) -> None:
        super().__init__(f"the room's {parameter} is not valid")
        self.parameter = parameter


class InvalidHandshakeError(Exception):
    """A handshake does not have the headers, cookies or parameters that a hook depends on.

    Attributes:
        details: the problems, as those of `InvalidDataError`.
    """

    def __init__(self, details: list[dict[str, Any]]) -> None:
        where = ", ".join([".".join(map(str, item["loc"])) for item in details[:MAX_DESCRIBED]])
        super().__init__(f"the handshake lacks, or has no valid {where}")
        self.details = details


def is_written_in_one_way(schema: Any) -> bool:
    """Whether a parameter with that schema of pydantic is to stand in a room's name as Python writes its value."""
    return isinstance(schema, dict) and schema.get("type") in _WRITTEN_IN_ONE_WAY


def describe_problems(error: InvalidDataError, schema: Any) -> str:
    """Describe invalid data in one line for the log, without anything that the client chose.

    Args:
        error: what validation has raised.
        schema: pydantic's schema that was validated by.
    """
    ours = names_in(schema)
    problems = []
    for item in error.details[:MAX_DESCRIBED]:
        where = ".".join([str(part) if isinstance(part, int) or part in ours else "…" for part in item["loc"]])
        problems.append(": ".join(filter(None, [where, _why(item)])))
    return printable("; ".join(problems) + ("; …" if len(error.details) > MAX_DESCRIBED else ""))


def _why(problem: dict[str, Any]) -> str:
    """Return pydantic's message if it is the same for every value, else its type: the message may quote the client."""
    kind: str = problem["type"]
    try:
        template = PydanticKnownError(kind).message_template  # type: ignore[arg-type]
    except (KeyError, TypeError):  # of the application, or one with values in it
        template = ""
    return template if template == problem["msg"] else kind.replace("_", " ")
