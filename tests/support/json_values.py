"""What JSON carries, as hypothesis draws it, and as it is read back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["ids", "names", "read", "scalars", "text", "values"]

# JSON has no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=12)
ids = st.integers() | text


def read(message: PreparedMessage) -> Any:
    return json.loads(message.payload)
