#!/usr/bin/env bash
# FastAPI takes a parameter whose annotation it cannot resolve for one of the query, whatever the annotation says.
#
# With `from __future__ import annotations` an annotation is text. What that names is looked for in the module of the
# function only; a dependency that is defined in a function (a factory of applications, a test) is not found there, and
# neither is what is imported for type checkers alone. Nothing is said: `Annotated[str, Depends(tenant)]` becomes a
# required parameter of the query, and each request is answered 422. An override that is written so in a test is one, too.
# In velocity-ws such a dependency is refused where its hook is registered.
#
# Versions: FastAPI 0.165.0, Python 3.11. Seen: see `expected` below.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastapi==0.165.0
cat > "$place/program.py" <<'PROGRAM'
from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.dependencies.utils import get_dependant


def make():
    def tenant() -> str:
        return "acme"

    def greeting(name: Annotated[str, Depends(tenant)]) -> str:
        return f"hello {name}"

    return greeting


graph = get_dependant(path="/", call=make())
print("depends on:", [each.name for each in graph.dependencies])
print("of the query:", [field.name for field in graph.query_params])
PROGRAM
expected="depends on: []
of the query: ['name']"
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
