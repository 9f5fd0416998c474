"""Streams that were valid until something happened to them: refused or understood, and never more than that."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.support import DEADLINE
from tests.support.say import Say
from tests.support.siege import MEBIBYTE, Besieged, besieged
from tests.support.wire import DEFLATE, CloseFinder, deflated, frame, handshake
from velocity_ws.concurrency.eager import KEEP

AT_ONCE = 20
FRAMES_EACH = 4
"""Mutated frames of one connection; one that is refused is its last."""
OF_ITS_OWN = (
    "INFO velocity_ws.uvicorn ",
    *[f"INFO uvicorn.error {word}" for word in ("Started", "Waiting for app", "Application", "Shutting", "Finished")],
)
"""Beginnings of what a server logs that nobody connects to."""
ECHO = '{"event":"echo","data":{"n":[1,null,"é€😀"]},"id":7}'.encode()


def stream(chance: random.Random) -> list[bytes]:
    """The frames of one valid message, control frames between its fragments included."""
    mask = chance.randbytes(4)
    size = chance.choice((0, 1, 124, 125, 126, 127, 1000, 4000))
    opcode, payload = chance.choice(((0x01, ECHO), (0x02, chance.randbytes(size)), (0x02, bytes(size))))
    kind = chance.random()
    if kind < 0.15:
        return [frame(chance.choice((0x89, 0x8A)), payload[:125], mask)]
    if kind < 0.2:
        return [frame(0x88, b"\x0f\xa0bye", mask)]
    if chance.random() < 0.5:
        opcode, payload = opcode | 0x40, deflated(payload)
    if kind < 0.5:
        return [frame(0x80 | opcode, payload, mask)]
    cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.randrange(1, 6)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = [frame(opcode if number == 0 else 0, part, mask) for number, part in enumerate(parts[:-1])]
    frames.append(frame(0x80, parts[-1], mask))
    if chance.random() < 0.5:
        frames.insert(chance.randrange(len(frames)), frame(0x89, b"between", mask))
    return frames


def mutated(chance: random.Random, data: bytes) -> bytes:
    """A frame to which something has happened."""
    changed = bytearray(data)
    what, at = chance.random(), chance.randrange(len(data))
    if what < 0.25:
        changed[chance.randrange(2)] ^= 1 << chance.randrange(8)
    elif what < 0.5:
        changed[at] ^= 1 << chance.randrange(8)
    elif what < 0.6:
        changed[at] = chance.randrange(256)
    elif what < 0.7:
        del changed[at : at + chance.randrange(1, 9)]
    elif what < 0.8:
        changed[at:at] = chance.randbytes(chance.randrange(1, 9))
    elif what < 0.9:
        changed += changed[at:]
    else:
        del changed[at + 1 :]
    return bytes(changed)


def attack(chance: random.Random) -> tuple[bytes, int]:
    """What one connection sends, and how many mutated frames are in it."""
    data = b"".join(b"".join(stream(chance)) for _ in range(chance.randrange(3)))
    count = 0
    while count < FRAMES_EACH:
        frames = stream(chance)
        for at in chance.sample(range(len(frames)), min(len(frames), chance.randrange(1, 3))):
            frames[at] = mutated(chance, frames[at])
            count += 1
        data += b"".join(frames)
    return data, count


async def connection(port: int, chance: random.Random) -> tuple[int, int]:
    """One connection that sends such a stream, cut anywhere; its mutated frames and how it ended (0: not at all)."""
    data, count = attack(chance)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    finder = CloseFinder()
    code = 0
    try:
        async with asyncio.timeout(DEADLINE):
            writer.write(handshake(DEFLATE if chance.random() < 0.8 else ""))
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            while data:
                size = chance.choice((1, 2, 3, 7, 30, 200, 5000))
                writer.write(data[:size])
                data = data[size:]
                await asyncio.sleep(0)  # another turn, so that it may well be another packet
            if chance.random() < 0.2:
                writer.transport.abort()
                return count, 0
            writer.write_eof()
            while received := await reader.read(1 << 16):
                finder.feed(received)
    except OSError:
        code = 1006  # cut by a reset; the close frame may have come before
    finally:
        writer.transport.abort()
    return count, finder.code or code


async def good(server: Besieged) -> None:
    """The server serves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(DEADLINE):
        writer.write(handshake() + frame(0x81, ECHO))
        await reader.readuntil(b"\r\n\r\n")
        head = await reader.readexactly(2)
        assert b'"reply"' in await reader.readexactly(head[1])
    writer.transport.abort()


async def mutations(total: int, say: Say, *, seed: int, loop: str = "uvloop") -> None:
    """So many mutated frames, and what must be true meanwhile and afterwards."""
    async with besieged(loop=loop, log="INFO", rate_limit=0, max_message_size=64 * 1024) as server:
        await good(server)
        await server.until(lambda state: not state["sessions"])
        before = await server.ask()
        memory = await server.ask("mark")
        sent = connections = 0
        ends: Counter[int] = Counter()

        async def worker(number: int) -> None:
            nonlocal sent, connections
            chance = random.Random(f"{seed} {number}")
            while sent < total:
                count, code = await connection(server.port, chance)
                sent += count
                connections += 1
                ends[code] += 1

        await asyncio.gather(*[worker(number) for number in range(AT_ONCE)])
        await good(server)
        state = await server.until(
            lambda state: (
                state["sockets"] <= before["sockets"]
                and state["tasks"] <= before["tasks"] + KEEP
                and not state["sessions"] + state["handshakes"]
            )
        )
    accepted = [line for line in server.log if "[accepted]" in line]
    lines = [line for line in server.log if line not in accepted and not line.startswith(OF_ITS_OWN)]
    assert len(accepted) == connections + 2
    worst = (state["peak"] - memory) / MEBIBYTE
    say(
        f"{sent} mutated frames (seed {seed}) on {loop}: {connections} connections, "
        f"close codes {dict(sorted(ends.items()))}, {len(lines)} log lines about them, server +{worst:.2f} MiB"
    )
    refused = sum(count for code, count in ends.items() if code)
    assert refused > connections // 4
    assert {1002, 1007, 4000} <= set(ends)
    assert set(state["closes"]) <= {"1002", "1007", "1009"}
    assert not [line for line in lines if "Traceback" in line or "ERROR" in line]
    assert len(lines) <= refused
    assert worst < 16


async def test_six_thousand_mutated_frames(say: Say) -> None:
    await mutations(6_000, say, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sixty_thousand_mutated_frames(loop: str, say: Say) -> None:
    await mutations(60_000, say, seed=random.randrange(1 << 32), loop=loop)
