#!/usr/bin/env bash
# Litestar's mount puts a slash at the end of every path: no route of a mounted Starlette or FastAPI app is found.
#
# `asgi("/inner", is_mount=True)` hands an ASGI application the rest of the path, "/hello" of "/inner/hello", as
# "/hello/", and leaves `root_path` empty. ASGI has `path` as the client asked for it, and frameworks tell the two
# apart: Starlette redirects "/hello/" to "/hello", outside of the mount, as it does not know of it, and that is a 404.
# An application that is to be mounted anywhere has to take a path with a slash at its end for the one without.
#
# Versions: litestar 2.25.0, starlette 1.10.0, httpx 0.28.1 (the client). Seen, for GET /inner/hello:
#   starlette mount: path /inner/hello, root_path /inner: 200 hello
#   litestar mount: path /hello/, root_path : 307 to http://host/hello: 404
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet litestar==2.25.0 starlette==1.10.0 httpx==0.28.1
cat > "$place/program.py" <<'PROGRAM'
import asyncio
from typing import Any

import httpx
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

seen = []
inner = Starlette(routes=[Route("/hello", lambda request: PlainTextResponse("hello"))])


async def noted(scope: Any, receive: Any, send: Any) -> None:
    seen.append(f"path {scope['path']}, root_path {scope.get('root_path', '')}")
    await inner(scope, receive, send)


async def ask(name, app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client:
        answer = await client.get("/inner/hello")
        said = f"{answer.status_code} {answer.text}"
        if answer.is_redirect:
            target = answer.headers["location"]
            said = f"{answer.status_code} to {target}: {(await client.get(target)).status_code}"
        print(f"{name} mount: {seen[0]}: {said}")
        seen.clear()


async def main():
    await ask("starlette", Starlette(routes=[Mount("/inner", noted)]))
    await ask("litestar", Litestar([asgi("/inner", is_mount=True, copy_scope=True)(noted)], logging_config=None))


asyncio.run(main())
PROGRAM
expected='starlette mount: path /inner/hello, root_path /inner: 200 hello
litestar mount: path /hello/, root_path : 307 to http://host/hello: 404'
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
