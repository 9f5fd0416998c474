"""Loading: makes what a URL names, of the class that is for its scheme; says what is wrong, and what to install.

Knows no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from velocity_ws.backplane.urls import check_url
from velocity_ws.errors import SettingsError

__all__ = ["load_class", "make"]

_EXTRAS = {"memory": "", "embedded": "embedded", "nats": "nats", "tls": "nats"}
"""What has to be installed for a scheme; for all others it is ``redis``."""


def load_class(url: str, classes: Mapping[str, tuple[str, str]]) -> Any:
    """The class for a URL.

    Args:
        url: as in ``WS_BACKPLANE_URL``.
        classes: the module and the class for each scheme.

    Raises:
        SettingsError: the URL cannot be used, or a package is missing.
    """
    try:
        check_url(url)
    except ValueError as error:
        raise SettingsError({"WS_BACKPLANE_URL": str(error)}) from None
    scheme = url.partition("://")[0]
    module, name = classes[scheme]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        problem = f"{error.name or module} is not installed; pip install 'velocity-ws[{_EXTRAS.get(scheme, 'redis')}]'"
        raise SettingsError({"WS_BACKPLANE_URL": problem}) from error


def make(kind: Any, url: str, **options: object) -> Any:
    """An instance of a class.

    Args:
        kind: the class.
        url: the engine's own, without what is ours.
        options: further arguments of the class.

    Raises:
        SettingsError: the class does not take it.
    """
    try:
        return kind(url, **options)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError({"WS_BACKPLANE_URL": f"it cannot be used: {type(error).__name__}"}) from None
