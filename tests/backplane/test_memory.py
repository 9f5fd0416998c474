"""What the bus within a process does beyond the contract: several loops, and a bound."""

from __future__ import annotations

import asyncio
import threading
import weakref

from velocity_ws.backplane.memory import MAX_WAITING, MemoryBackplane
from velocity_ws.testing import Listener
from velocity_ws.testing.listener import DEADLINE, listening, refused


async def test_loops_of_their_own() -> None:
    sent = [("a", b"%d" % number) for number in range(3000)]
    received: list[list[tuple[str, bytes]]] = []
    everyone = threading.Barrier(3, timeout=DEADLINE)

    async def elsewhere() -> None:
        async with listening(MemoryBackplane("memory://loops"), ["a"]) as listener:
            await asyncio.to_thread(everyone.wait)
            received.append(list(await listener.messages(len(sent))))

    threads = [threading.Thread(target=asyncio.run, args=(elsewhere(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    async with listening(MemoryBackplane("memory://loops")) as here:
        await asyncio.to_thread(everyone.wait)
        for start in range(0, len(sent), 7):
            await here.backplane.publish(sent[start : start + 7])
        for thread in threads:
            await asyncio.to_thread(thread.join, DEADLINE)
    assert received == [sent, sent]


def test_a_bus_goes_with_the_last_that_uses_it() -> None:
    one, other = MemoryBackplane("memory://gone"), MemoryBackplane("memory://gone")
    bus = weakref.ref(one._bus)
    assert other._bus is bus()
    del one
    assert other._bus is bus()
    del other
    assert bus() is None


async def test_another_name_is_another_bus() -> None:
    async with listening(MemoryBackplane("memory://one"), ["a"]) as one:
        async with listening(MemoryBackplane("memory://two"), ["a"]) as two:
            await two.backplane.publish([("a", b"1")])
            assert await two.messages(1) == [("a", b"1")]
            await one.backplane.publish([("a", b"2")])
            assert await one.messages(1) == [("a", b"2")]


async def test_only_what_waits_counts() -> None:
    part = b"x" * (MAX_WAITING // 2)
    async with listening(MemoryBackplane("memory://steady"), ["a"]) as one:
        for number in range(6):
            await one.backplane.publish([("a", part)])
            await one.messages(number + 1)
        assert one.losses == []


async def test_who_falls_behind_is_cut_off() -> None:
    part = b"x" * (MAX_WAITING // 4)
    async with listening(MemoryBackplane("memory://slow"), ["a"]) as slow:
        # One call, in which the loop has no turn.
        await slow.backplane.publish([("a", part)] * 4 + [("a", b"too much"), ("a", b"after it")])
        assert isinstance(await slow.loss(), ConnectionError)
        assert slow.received == [("a", part)] * 4
        await refused(slow.backplane.publish([("a", b"1")]))
        await slow.backplane.close()
        await slow.connect()
        await slow.backplane.subscribe(["a"])
        await slow.backplane.publish([("a", b"again")])
        assert (await slow.messages(5))[4:] == [("a", b"again")]
        assert len(slow.losses) == 1


async def test_a_loop_that_is_gone_holds_nobody_up() -> None:
    async def begin() -> MemoryBackplane:
        backplane = MemoryBackplane("memory://gone")
        await Listener(backplane).connect()
        await backplane.subscribe(["a"])
        return backplane

    gone = await asyncio.to_thread(asyncio.run, begin())
    async with listening(MemoryBackplane("memory://gone"), ["a"]) as here:
        await here.backplane.publish([("a", b"1")])
        assert await here.messages(1) == [("a", b"1")]
    await gone.close()
