"""InjectedType: what marks a class whose object a dependency gets by its annotation. Knows no such class."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

__all__ = ["InjectedType", "name_of_value"]


class InjectedType:
    """A base of classes that a dependency may ask for.

    Attributes:
        injected_as: the name of the value that is such an object.
    """

    injected_as: ClassVar[str]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Be a type for pydantic, so that FastAPI takes it as that of a parameter."""
        return core_schema.is_instance_schema(cls)


def name_of_value(annotation: Any) -> str | None:
    """The name of the value that an annotation asks for, as ``Client`` and ``Client[User]`` do; ``None`` for others."""
    origin = getattr(annotation, "__origin__", annotation)
    name: str | None = getattr(origin, "injected_as", None)
    return name
