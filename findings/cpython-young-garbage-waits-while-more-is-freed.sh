#!/usr/bin/env bash
# CPython's count of young objects goes down with each old object that is freed: while as many go as come, none is young
# enough to be looked at, and the next young collection, which "looks at 700 objects", looks at 100,000.
#
# A collection of the youngest generation begins when there were 700 more allocations than deallocations of containers
# (gc.set_threshold). The deallocations are those of any generation, and the count does not go below 0. A server of which
# thousands of clients leave while others come frees old objects and makes new ones: the new ones gather in the youngest
# generation for as long as that lasts, garbage in cycles among them, and then one collection goes through all of them,
# in a tenth of the time of a full one. What is asked of gc.get_count() meanwhile is 0 or little.
#
# Versions: CPython 3.11.7, 3.12.1, 3.13.0; nothing is installed. Seen, on each of them: the youngest generation had over
# 100,000 objects, where the count said under 700, and 20,000 pieces of garbage in cycles were not collected meanwhile.
# CPython 3.14 collects otherwise. Set PYTHON for another interpreter than python3.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/program.py" <<'PROGRAM'
import gc

old = [[number] for number in range(200_000)]
gc.collect()
freed, kept = 0, []


def note(phase: str, info: dict[str, int]) -> None:
    global freed
    freed += phase == "stop" and info["collected"]


gc.callbacks.append(note)
for number in range(100_000):
    if number % 5 == 0:
        cycle: list[object] = []
        cycle.append(cycle)
    kept.append([number])  # one comes, and two go
    del old[-2:]
print("count below 700:", gc.get_count()[0] < 700)
print("young objects above 100,000:", len(gc.get_objects(generation=0)) > 100_000)
print("garbage collected meanwhile:", freed)
gc.collect(0)
print("garbage collected then above 19,000:", freed > 19_000)
PROGRAM
expected='count below 700: True
young objects above 100,000: True
garbage collected meanwhile: 0
garbage collected then above 19,000: True'
seen=$("${PYTHON:-python3}" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
