"""What is fuzzed, and what must be true of it. Plain functions of bytes: knows no fuzzer.

A target raises `AssertionError` where the input shows a fault; `python -m tests.fuzz TARGET FILE` replays one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Final, Literal

import uvicorn
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.support import library
from velocity_ws.close import CloseCode
from velocity_ws.messages.frames import COMPRESSED
from velocity_ws.websocket.parser import cut

__all__ = ["SEEDS", "TARGETS", "chunks_of", "make_quick"]

MAX_SIZE: Final = library.MAX_SIZE
MESSAGES = (Opcode.TEXT, Opcode.BINARY)
RAW = 0x20
"""Records of an input that begin with a lower byte are so many bytes, as they are; others are frames."""


def cut_frame(data: bytes, start: int) -> int | tuple[int, bytes, int]:
    """The frame cutter, whatever its form: how many bytes are lacking, or a frame's opcode, payload and end.

    The opcode is 0 where the frame is left to the library.
    """
    found = cut(data, start, MAX_SIZE)
    if isinstance(found, int):
        return found
    end, kind, payload = found
    # A compressed one is the library's here, as nothing was negotiated.
    return (0, b"", end) if kind & COMPRESSED else (kind, payload, end)


def fuzz_cut(data: bytes) -> None:
    """The cutter finds what the library finds: the same frame, or that there is none yet."""
    if not data:
        return
    start = min(data[0] % 8, len(data))
    found = cut_frame(data, start)
    theirs = _library(data[start:])
    if isinstance(found, int):
        assert found > 0
        assert theirs in ("unfinished", "refused"), "it waits for more of a frame that is there"
        # What must be refused may be refused a little later: with its header, or when all of it is there.
        for _ in range(3 if theirs == "refused" else 0):
            data += bytes(found)
            if not isinstance(found := cut_frame(data, start), int):
                break
        assert theirs == "unfinished" or (not isinstance(found, int) and found[0] == 0), "it never refuses it"
        return
    opcode, payload, end = found
    assert start < end <= len(data)
    if theirs == "unfinished":
        assert (opcode, end) == (0, len(data)), "of a frame that it need not wait for, the library would not get all"
    elif theirs == "refused":
        assert opcode == 0
        assert _library(data[start:end]) == "refused", "the library would not get enough to refuse it"
    else:
        frame, size = theirs
        assert end == start + size, "the library would not get just one frame"
        is_plain = frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        assert (opcode, payload) == ((frame.opcode, frame.data) if is_plain and frame.opcode in MESSAGES else (0, b""))


def _library(data: bytes) -> tuple[Frame, int] | Literal["unfinished", "refused"]:
    """The frame that the library finds, and its size."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=True, max_size=MAX_SIZE)
    try:
        next(parser)
    except StopIteration as stop:
        return stop.value, len(data) - len(reader.buffer)
    except (ProtocolError, PayloadTooBig):
        return "refused"
    return "unfinished"


def chunks_of(data: bytes) -> list[bytes]:
    """What a client sends, as an input describes it: frames and stray bytes, cut into what is read at a time.

    The first four bytes say where to cut, in 256ths. Then come records: a byte under `RAW` and so many bytes as they
    are, or `RAW` and the size of a payload, the first byte of a frame's header, and the payload.
    """
    places, data = data[:4], data[4:]
    sent = bytearray()
    at = 0
    while at < len(data):
        size = data[at]
        at += 1
        if size < RAW:
            sent += data[at : at + size]
            at += size
            continue
        size -= RAW
        first, payload = data[at : at + 1], data[at + 1 : at + 1 + size]
        at += 1 + size
        if first:
            mask = bytes((size, 0x5A, 0, 0xFF))
            length = bytes((0x80 | len(payload),))
            if len(payload) > 125:
                length = b"\xfe" + len(payload).to_bytes(2, "big")
            sent += first + length + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    cuts = sorted({place * len(sent) // 256 for place in places} - {0})
    return [bytes(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]


def fuzz_class(data: bytes) -> None:
    """The class gives an application the messages and the close code that the library alone gives."""
    chunks = chunks_of(data)
    ours, theirs = _ours(chunks), library.theirs(b"".join(chunks))
    if ours[1] is None and theirs[1] is not None:
        # What must be refused may be refused a little later, when all of the frame is there.
        ours = _ours([*chunks, bytes(MAX_SIZE + 14)])
    if ours[1] == CloseCode.POLICY_VIOLATION != theirs[1]:
        # A flood of fragments, which the library would go on with.
        assert ours[0] == theirs[0][: len(ours[0])]
        return
    assert ours == theirs, f"{chunks} gave {ours}, and by the library {theirs}"


def _ours(chunks: list[bytes]) -> library.Result:
    return _loop().run_until_complete(library.ours(chunks))


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def make_quick() -> None:
    """Take from each input what costs most; for a process that does nothing else."""
    logging.disable(logging.CRITICAL)
    uvicorn.Config = functools.partial(uvicorn.Config, log_config=None)  # type: ignore[assignment,misc]


TARGETS: dict[str, Callable[[bytes], None]] = {"cut": fuzz_cut, "class": fuzz_class}


def _record(first: int, payload: bytes = b"") -> bytes:
    return bytes((RAW + len(payload), first)) + payload


SEEDS: dict[str, list[bytes]] = {
    "cut": [
        b"\x00" + Frame(Opcode.TEXT, b"hello").serialize(mask=True),
        b"\x00" + Frame(Opcode.BINARY, b"x" * 200).serialize(mask=True),
        b"\x00" + Frame(Opcode.BINARY, b"x" * 66_000).serialize(mask=True),
        b"\x00" + Frame(Opcode.PING, b"ping").serialize(mask=True),
        b"\x00" + Frame(Opcode.TEXT, b"half", fin=False).serialize(mask=True),
        b"\x00\xc1\x88maskdeflated",
        b"\x02..\x81\xff" + (2**63 + 1).to_bytes(8, "big"),
    ],
    "class": [
        b"\x10\x80\xc0\xff" + _record(0x81, "grüß".encode()) + _record(0x82, b"\x00\xff" * 70) + _record(0x81),
        b"\x40\x41\x42\x43"
        + _record(0x01, "gr\u00fc".encode()[:3])
        + _record(0x89, b"p")
        + _record(0x80, b"\xbc\xc3\x9f"),
        b"\x00\x20\x20\x20" + _record(0x81, b"bye") + _record(0x88, b"\x03\xe8bye") + _record(0x81, b"late"),
        b"\x00\x00\x00\x00" + _record(0x8A) + _record(0x02, b"a") + _record(0x88, b"\x0f\xa0") + _record(0x80, b"b"),
        b"\x00\x00\x00\x00" + b"\x02\x81\x05" + _record(0x81, b"unmasked before"),
        b"\x00\x00\x00\x80" + _record(0xC1, b"not negotiated"),
        b"\x00\x00\x00\x80" + _record(0x81, b"\xc3\x28"),
    ],
}
