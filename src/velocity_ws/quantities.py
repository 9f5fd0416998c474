"""Quantities: durations and sizes as people write them, parsed. Pure; knows no setting."""

from __future__ import annotations

import math
import re

__all__ = ["parse_duration", "parse_size"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*([a-z]*)", re.ASCII)


def parse_duration(value: object) -> object:
    """Parse a duration (``10s``, ``1m30s``, ``500ms`` or a number of seconds) into seconds.

    Raises:
        ValueError: it is a text that means none, or a number that is not finite.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            value = float(text)
        elif _DURATION.fullmatch(text):
            value = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        else:
            raise ValueError("not a duration; write 10s, 1m30s, 500ms or a number of seconds")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a duration; it must be finite")
    return value


def parse_size(value: object) -> object:
    """Parse a size (``64KiB``, ``1MiB``, ``1MB`` or a number of bytes) into bytes.

    Raises:
        ValueError: it is a text that means none.
    """
    # Not pydantic's ByteSize, which looks at the beginning only: 64,000 is 64 to it, 64KiB/s is 64KiB, and 1.5 is 1. It
    # takes 1m as well, a million, which is a MiB in nginx, and 1bit, which is 0; its error does not say what to write.
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        if match is None or match[2] not in _BYTES:
            raise ValueError("not a size; write a number of bytes, or one with a unit: 64KiB, 1MiB")
        return int(match[1]) * _BYTES[match[2]]
    return value
