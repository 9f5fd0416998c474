"""Discovery: finds the application to serve, as ``fastapi run`` and ``fastapi dev`` do. Knows no server."""

from __future__ import annotations

import importlib
import inspect
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.applications import Starlette

from velocity_ws.hooks.annotations import signature_of

__all__ = ["ApplicationNotFound", "find"]

DEFAULT_FILES = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
NAMES = ("app", "api")
"""Names of an application that are looked for before its type."""


class ApplicationNotFound(Exception):
    """There is no application to serve; the text says why."""


def find(target: str | None = None, name: str | None = None) -> str:
    """The import string of an application, which can be imported from then on: ``sys.path`` gets what it needs.

    Args:
        target: an import string, or the path of a file or package, which is imported; by default the ``entrypoint`` of
            ``[tool.fastapi]`` in ``pyproject.toml``, else the first of the usual files that there is.
        name: the application's in its module; by default ``app`` or ``api``, else the first of FastAPI's.

    Raises:
        ApplicationNotFound: there is none.
        Exception: what importing it raises.
    """
    if target is None and name is None and (entry := _entrypoint()) is not None:
        target = entry
        sys.path.insert(0, str(Path.cwd()))
    if target is not None and not Path(target).exists():
        module, _, attribute = target.partition(":")
        if module and attribute and name is None:
            return target
        raise ApplicationNotFound(
            f'no file or folder is called "{target}", and else it must be in format "<module>:<attribute>"'
        )
    module = _module(_default_file() if target is None else Path(target))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ApplicationNotFound(f"{error}; every folder of a package needs an __init__.py") from None
    return f"{module}:{_name(found, name)}"


def _entrypoint() -> str | None:
    """The ``entrypoint`` of ``[tool.fastapi]`` in ``pyproject.toml``, if there is one."""
    path = Path("pyproject.toml")
    if not path.is_file():
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("fastapi", {}).get("entrypoint")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ApplicationNotFound(f"pyproject.toml cannot be read: {error}") from None
    if found is not None and (not isinstance(found, str) or not all(found.partition(":"))):
        raise ApplicationNotFound(
            'entrypoint of [tool.fastapi] in pyproject.toml must be in format "<module>:<attribute>"'
        )
    return found


def _default_file() -> Path:
    for name in DEFAULT_FILES:
        if (path := Path(name)).is_file():
            return path
    raise ApplicationNotFound(
        f"there is none of {', '.join(DEFAULT_FILES)} here; give a path, or an import string as in main:app"
    )


def _module(path: Path) -> str:
    """The name of a file's or a package's module; it can be imported from then on."""
    path = path.resolve()
    parts = [path.parent if path.name == "__init__.py" else path]
    while (parts[0].parent / "__init__.py").is_file():
        parts.insert(0, parts[0].parent)
    sys.path.insert(0, str(parts[0].parent))
    return ".".join(part.stem for part in parts)


def _name(module: ModuleType, name: str | None) -> str:
    """What the application is called in its module."""
    if name is not None:
        if not hasattr(module, name):
            raise ApplicationNotFound(f"{module.__name__} has no {name}")
        return name
    # One that is wrapped, as by WebSocketMiddleware, is no FastAPI any more, and yet what is to be served.
    for known in NAMES:
        if _is_application(getattr(module, known, None)):
            return known
    fastapi = getattr(sys.modules.get("fastapi"), "FastAPI", Starlette)
    for kind in (fastapi, Starlette):
        for other in dir(module):
            if isinstance(getattr(module, other), kind):
                return other
    raise ApplicationNotFound(
        f"{module.__name__} has no application called app or api, nor one of FastAPI; --app names another"
    )


def _is_application(thing: Any) -> bool:
    """Whether it is an ASGI application, and no class of such."""
    if isinstance(thing, type) or not callable(thing):
        return False
    if not inspect.iscoroutinefunction(thing) and not inspect.iscoroutinefunction(type(thing).__call__):
        return False
    return len(signature_of(thing).parameters) == 3
