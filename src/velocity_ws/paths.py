"""EndpointPath: the path of an endpoint, and what is served below it. Pure: knows no request and no application."""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import compile_path

from velocity_ws.errors import InvalidPathError

__all__ = ["EndpointPath"]


class EndpointPath:
    """A path as Starlette writes it, ``/ws`` or ``/ws/{tenant}/{room:path}``, with and without a slash at its end.

    Attributes:
        is_wide: whether it says nothing of its own at its beginning (``/``, ``/{room}``), so that what is served below
            it may also be a path of the application's.
        form: equal for paths that differ in the names of their parameters, or the slash at their end, alone.
    """

    def __init__(self, path: str) -> None:
        """
        Raises:
            InvalidPathError: it does not start with a slash, or its parameters are none that Starlette knows.
        """
        if not path.startswith("/"):
            raise InvalidPathError(f"a path starts with a slash, as in '/ws'; this one is {path!r}")
        try:
            # The pattern is used with `fullmatch`, as its ``$`` would let a line break at the end through.
            self._pattern, text, self._convertors = compile_path(path.rstrip("/") or "/")
        except (AssertionError, KeyError, ValueError, re.error) as error:
            raise InvalidPathError(f"{path!r} is no path: {error}") from error
        for name in self._convertors:
            text = text.replace("{" + name + "}", "")
        if "{" in text or "}" in text:
            raise InvalidPathError(f"a parameter of a path is written {{name}} or {{name:path}}; this one is {path!r}")
        self.is_wide = path.startswith("/{") or not path.strip("/")
        self._bare = path.rstrip("/")
        self.form = re.sub(r"\?P<\w+>", "", self._pattern.pattern)

    def match(self, path: str) -> dict[str, Any] | None:
        """The parameters that a request's path has, or ``None`` where it is another path."""
        bare = path.removesuffix("/")
        if not self._convertors:  # by far the most common
            return {} if bare == self._bare else None
        found = self._pattern.fullmatch(bare) or self._pattern.fullmatch(bare + "/")
        if found is None:
            return None
        try:
            return {name: self._convertors[name].convert(text) for name, text in found.groupdict().items()}
        except ValueError:  # such as an int of 5,000 digits
            return None

    def match_below(self, path: str) -> tuple[dict[str, Any], str] | None:
        """The same for what is directly below it: the parameters, and its name."""
        base, _, name = path.rpartition("/")
        parameters = self.match(base)
        return None if parameters is None else (parameters, name)
