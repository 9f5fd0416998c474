#!/usr/bin/env bash
# pydantic's ByteSize reads the beginning of a text and passes over the rest: "1.000.000" is 1 byte, "64,000" is 64.
#
# A size is matched against a pattern that is tied to the beginning of the text and not to its end. A number that is
# written as in German or as in English with a separator, a rate ("64KiB/s") and a decimal number without a unit are
# taken without an error, and are another size than was meant; "1m" is a million bytes, as the letter stands for MB.
# Who takes sizes from people has to check the whole text before, or read it by other means.
#
# Versions: pydantic 2.14.3, Python 3.11. Seen: see `expected` below; every line of it was taken without an error.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pydantic==2.14.3
cat > "$place/program.py" <<'PROGRAM'
from pydantic import ByteSize, TypeAdapter

for text in ("64KiB", "1 MiB", "64,000", "1.000.000", "1.5", "64KiB/s", "1m"):
    print(f"{text}: {int(TypeAdapter(ByteSize).validate_python(text))}")
PROGRAM
expected='64KiB: 65536
1 MiB: 1048576
64,000: 64
1.000.000: 1
1.5: 1
64KiB/s: 65536
1m: 1000000'
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
