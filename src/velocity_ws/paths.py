"""Paths: matches the path of an endpoint, and of what is served below it. Pure: knows no request, no application."""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import compile_path

from velocity_ws.errors import InvalidPathError

__all__ = ["STREAMS", "EndpointPath"]

STREAMS = "/streams/"
"""What is between an endpoint's path and the id of a stream."""


class EndpointPath:
    """A path in Starlette's syntax, ``/ws`` or ``/ws/{tenant}/{room:path}``; a slash at its end makes no difference.

    Attributes:
        is_wide: whether it begins with no fixed text (``/``, ``/{room}``), so that paths below it may be the
            application's own.
        form: equal for paths that differ only in the names of their parameters or a slash at their end.
    """

    def __init__(self, path: str) -> None:
        """
        Args:
            path: the path, which starts with a slash.

        Raises:
            InvalidPathError: it does not start with a slash, or has parameters that Starlette does not know.
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
        """Match the path of a request; return its parameters, or ``None`` if it is another path."""
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

    def match_stream(self, path: str) -> tuple[dict[str, Any], str] | None:
        """Match the path of a stream, ``{this path}/streams/{id}``; return the parameters, and the id."""
        at = path.find(STREAMS)
        while at >= 0:
            parameters = self.match(path[:at])
            if parameters is not None:
                return parameters, path[at + len(STREAMS) :]
            at = path.find(STREAMS, at + 1)
        return None

    def match_below(self, path: str) -> tuple[dict[str, Any], str] | None:
        """Match a path one level below; return the parameters and the last segment, or ``None`` if it is elsewhere."""
        base, _, name = path.rpartition("/")
        parameters = self.match(base)
        return None if parameters is None else (parameters, name)
