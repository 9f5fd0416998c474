#!/usr/bin/env bash
# fastapi-cli 0.0.34 (fastapi 0.165.0, uvicorn 0.54.0): `fastapi run` and `fastapi dev` look for an instance of FastAPI.
# Where `app` is one that is wrapped in an ASGI middleware, it is passed over without a word, and the FastAPI that is
# wrapped is served, without the middleware: `uvicorn main:app` and `fastapi run main.py` serve two applications.
#
# Seen (2026-11-29, Python 3.11.7):
#   uvicorn main:app     -> from the middleware
#   fastapi run main.py  -> {"served":"inner"}
# Exits non-zero where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
  fastapi==0.165.0 fastapi-cli==0.0.34 uvicorn==0.54.0 2>/dev/null
cd "$place"
cat > main.py <<'PYTHON'
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

inner = FastAPI()


@inner.get("/")
def root():
    return {"served": "inner"}


class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await PlainTextResponse("from the middleware")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


app = Middleware(inner)
PYTHON

ask() { # PORT: what is served there, once it is
  for _ in $(seq 100); do
    venv/bin/python -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:$1/').read().decode())" 2>/dev/null && return
    sleep 0.1
  done
  return 1
}
free() { venv/bin/python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"; }

port=$(free)
venv/bin/uvicorn main:app --port "$port" --log-level critical &
by_uvicorn=$(ask "$port")
port=$(free)
venv/bin/fastapi run main.py --host 127.0.0.1 --port "$port" > fastapi.log 2>&1 &
by_fastapi=$(ask "$port")
echo "uvicorn main:app     -> $by_uvicorn"
echo "fastapi run main.py  -> $by_fastapi"
[ "$by_uvicorn" = "from the middleware" ] && [ "$by_fastapi" = '{"served":"inner"}' ]
