"""A process on an embedded engine: prints what it hears, publishes what it is told, and connects again when it has to.

Its arguments are the engine's URL and the topics it hears; its input has a topic and a text on each line. It ends when
its input does. It prints ``connected``, ``heard <topic> <text>`` and ``sent <text>``.
"""

from __future__ import annotations

import asyncio
import sys

from velocity_ws.backplane import create_backplane


async def main(url: str, *topics: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    backplane = create_backplane(url)
    connected, stopping, lost = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def hear(topic: str, data: bytes) -> None:
        print("heard", topic, data.decode(), flush=True)

    async def stay_connected() -> None:
        while not stopping.is_set():
            lost.clear()
            try:
                await backplane.connect(hear, lambda _: lost.set())
                await backplane.subscribe(topics)
            except OSError as error:
                print("failed", error, flush=True)
                await asyncio.sleep(0.05)
                continue
            connected.set()
            print("connected", flush=True)
            await lost.wait()
            connected.clear()
            await backplane.close()

    staying = asyncio.create_task(stay_connected())
    while line := (await reader.readline()).decode():
        topic, text = line.split()
        while True:
            await connected.wait()
            try:
                await backplane.publish([(topic, text.encode())])
            except OSError:
                await asyncio.sleep(0.01)
                continue
            break
        print("sent", text, flush=True)
    stopping.set()
    while not staying.done():  # the library swallows a cancellation that comes while it connects
        staying.cancel()
        await asyncio.wait([staying], timeout=0.1)
    await backplane.close()
    backplane.release()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
