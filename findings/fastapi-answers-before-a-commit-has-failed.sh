#!/usr/bin/env bash
# FastAPI sends the response before a dependency with `yield` has ended: a commit that fails there is answered 200.
#
# `yield session` and then `await session.commit()` is how sessions are written. What stands behind the yield runs when
# the response is on its way, so that an exception of it reaches the server's log and not the client. It was before the
# response in 0.106 to 0.117. `Depends(get, scope="function")` ends it first, and the client gets 500.
# In velocity-ws a dependency always ends before the answer.
#
# Versions: FastAPI 0.165.0, Starlette 1.10.0, Python 3.11. Seen: see `expected` below.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastapi==0.165.0 starlette==1.10.0
cat > "$place/program.py" <<'PROGRAM'
import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI

app = FastAPI()


async def session():
    yield
    raise OSError("disk full")  # await session.commit()


@app.get("/by-default")
async def by_default(db: Annotated[None, Depends(session)]):
    return "saved"


@app.get("/of-function")
async def of_function(db: Annotated[None, Depends(session, scope="function")]):
    return "saved"


async def ask(path):
    async def receive():
        return {"type": "http.request"}

    async def send(message):
        if message["type"] == "http.response.start":
            print(f"{path}: {message['status']}")

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    try:
        await app(scope, receive, send)
    except OSError as error:
        print(f"{path}: the server logs {error!r}")


asyncio.run(ask("/by-default"))
asyncio.run(ask("/of-function"))
PROGRAM
expected="/by-default: 200
/by-default: the server logs OSError('disk full')
/of-function: 500
/of-function: the server logs OSError('disk full')"
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
