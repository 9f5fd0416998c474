"""Stream errors: the exceptions about streams, a branch of the tree in `velocity_ws.errors`. Knows no stream.

* `StreamError`: a stream does not allow the call
    * `StreamNotFound` (a ``LookupError``): there is no stream of this id
    * `StreamGone` (a ``LookupError``): there was one, and what it said is kept no more
    * `StreamEnded` (a ``RuntimeError``): it has ended, and takes nothing more
    * `StreamTooLarge` (a ``ValueError``): it would be larger than a stream may be
"""

from __future__ import annotations

from velocity_ws.errors import VelocityError

__all__ = ["StreamEnded", "StreamError", "StreamGone", "StreamNotFound", "StreamTooLarge"]


class StreamError(VelocityError):
    """A stream does not allow the call.

    Attributes:
        stream_id: the id of the stream.
    """

    def __init__(self, stream_id: str, text: str) -> None:
        self.stream_id = stream_id
        super().__init__(f"stream {stream_id!r:.300} {text}")


class StreamNotFound(StreamError, LookupError):
    """There is no stream of this id, and there was none, as far as the engine knows."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, "was never started, as far as the engine knows: check the id, or start it")


class StreamGone(StreamError, LookupError):
    """There was a stream of this id, and what it said is kept no more. It is never run again."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(
            stream_id,
            "has ended, and what it said is kept no more (WS_STREAM_TTL): have the text from where you store it, and "
            "start anything new under another id",
        )


class StreamEnded(StreamError, RuntimeError):
    """The stream has ended, and takes nothing more.

    Attributes:
        end: ``done``, ``cancelled``, ``error`` or ``lost``.
    """

    def __init__(self, stream_id: str, end: str) -> None:
        self.end = end
        super().__init__(stream_id, f"has ended ({end}), and takes nothing more: stop writing")


class StreamTooLarge(StreamError, ValueError):
    """The stream would be larger than a stream may be, or an item larger than what the engine takes in one message.

    What it has so far is kept.

    Attributes:
        limit: bytes that it may have.
    """

    def __init__(self, stream_id: str, limit: int, *, is_item: bool = False) -> None:
        self.limit = limit
        super().__init__(
            stream_id,
            f"was given an item of more than {limit} bytes, which its engine does not take: say it in several items"
            if is_item
            else f"would have more than {limit} bytes (WS_STREAM_MAX_SIZE): end it, and go on in another one",
        )
