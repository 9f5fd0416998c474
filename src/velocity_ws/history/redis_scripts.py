"""Redis scripts: the steps of a store of room logs in Lua, for Redis 6.2 to 8 and Valkey 8 and 9. Knows no connection.

What a log has in the engine, all under one hash tag, so that it is on the server which carries the log's topic:

* ``{topic}:meta``, 76 bytes, numbers in network order: position (24 bytes, as clients hold it), the offset of the first
  element of the list (7), the largest offset that was evicted (7), the top when it was cleared last (7), bytes of all
  envelopes (7), age that an entry may have (6), time of the newest entry (6), a time that no entry is older than (6),
  and when the list's own expiry is to be set again (6). Times are in milliseconds.
* ``{topic}:log``, a list of entries as they are published. It costs a third of a stream's memory for rooms of ten
  messages (Redis 7.0, 8.2 and Valkey 9.1, measured), and its offsets go on when it is empty.
* ``{topic}:removals``, a hash from users to revisions. Its field ``""`` is a revision up to which nothing is known.
* ``{topic}:key:…``, for each idempotency key: the digest, and the stamp of its entry.

The first command that changes anything takes memory, as the engine refuses that one alone when it is full: then nothing
is done. It does not refuse what a script does after a first change. PUBLISH comes last for that reason.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Final

from velocity_ws.history.items import MAX_REMOVED

__all__ = ["APPEND", "CHANGE", "CHECK", "LOOKUP", "READ", "Script", "pack_append", "pack_change", "pack_read"]

pack_append = Struct(">6s8s8sQQQQ").pack
"""Epoch and mark of a log that may begin, mark of the entry, size, age, bytes, and how long the meta is kept."""
pack_change = Struct(">6s8sQ").pack
"""Epoch and mark of a log that may begin, and how long the meta is kept."""
pack_read = Struct(">6s8sQQQQB").pack
"""The same, and the offset after which, how many, how many bytes, and whether the newest."""

_META: Final = "'>c6I7I3c8I7I7I7I7I6I6I6I6'"

_LOAD: Final = f"""
local META, POSITION = {_META}, '>c6I7I3c8'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local epoch, offset, revision, mark, first, evicted, cleared, bytes, age, last, oldest, renew
local meta = redis.call('GET', KEYS[1])
if meta then
  epoch, offset, revision, mark, first, evicted, cleared, bytes, age, last, oldest, renew = struct.unpack(META, meta)
  now = math.max(now, last)
end
local function begin(new_epoch, new_mark)
  epoch, offset, revision, mark, first, evicted, cleared, bytes = new_epoch, 0, 0, new_mark, 1, 0, 0, 0
  age, last, oldest, renew = 0, now, now, 0
end
local function save(keep)
  redis.call('SET', KEYS[1], struct.pack(META, epoch, offset, revision, mark, first, evicted, cleared, bytes,
    age, last, oldest, renew), 'PX', keep)
end
local function position()
  return struct.pack(POSITION, epoch, offset, revision, mark)
end
local function time_of(entry)
  return (struct.unpack('>I8', entry, #entry - 7))
end
"""
_WHOLE: Final = """
if first <= offset and redis.call('LLEN', KEYS[2]) ~= offset - first + 1 then
  if now - last < age then evicted = offset end
  first = offset + 1
end
"""


class Script:
    """A script, as it is sent and as it is called.

    Attributes:
        text: the Lua.
        sha: what the engine knows it by.
    """

    def __init__(self, text: str) -> None:
        """
        Args:
            text: the Lua; publishing is ``PUBLISH``.
        """
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - which is how the engine names it

    def sharded(self) -> Script:
        """The same for a cluster, where a topic is a channel of one shard."""
        return Script(self.text.replace("'PUBLISH'", "'SPUBLISH'"))


APPEND: Final = Script(f"""{_LOAD}
local new_epoch, new_mark, fresh, size, ttl, most, keep = struct.unpack('>c6c8c8I8I8I8I8', ARGV[1])
if not meta then
  begin(new_epoch, new_mark)
elseif KEYS[4] then
  local known = redis.call('GET', KEYS[4])
  if known then
    local its_epoch, its_offset = struct.unpack('>c6I7', known, 17)
    if its_epoch == epoch and its_offset > cleared then
      if known:sub(1, 16) ~= ARGV[4] then return 0 end
      redis.call('PEXPIRE', KEYS[1], keep)
      return {{known:sub(17)}}
    end
  end
end
local previous = mark
offset, mark = offset + 1, fresh
local stamp = position() .. struct.pack('>c8I8', previous, now)
local count = redis.call('RPUSH', KEYS[2], ARGV[3] .. stamp)
local limit = math.min(age, ttl)
if count ~= offset - first + 1 then
  redis.call('LTRIM', KEYS[2], -1, -1)
  if now - last < limit then evicted = offset - 1 end
  first, bytes, oldest, renew = offset, 0, now, 0
end
bytes = bytes + #ARGV[3]
if now - oldest >= limit then
  while first < offset do
    local entry = redis.call('LINDEX', KEYS[2], 0)
    oldest = time_of(entry)
    if now - oldest < limit then break end
    redis.call('LPOP', KEYS[2])
    bytes, first = bytes - #entry + 40, first + 1
  end
  if first == offset then oldest = now end
end
while first <= offset and (offset - first + 1 > size or bytes > most) do
  local entry = redis.call('LPOP', KEYS[2])
  bytes, evicted, first = bytes - #entry + 40, first, first + 1
end
if count == 1 or age ~= ttl or now >= renew then
  local eighth = math.floor(ttl / 8)
  redis.call('PEXPIRE', KEYS[2], ttl + eighth + 1)
  renew = now + eighth
end
age, last = ttl, now
save(keep)
if revision > 0 then redis.call('PEXPIRE', KEYS[3], keep) end
if not meta then redis.call('DEL', KEYS[3]) end
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[4] .. stamp, 'PX', ARGV[5]) end
redis.call('PUBLISH', ARGV[2], ARGV[3] .. stamp)
return stamp
""")
"""KEYS: meta, log, removals, and where there is one the idempotency key's. ARGV: `pack_append`, topic, envelope, and
with a key the digest and the milliseconds that it is kept. The stamp; alone in a list of a duplicate; 0: a conflict."""

READ: Final = Script(f"""{_LOAD}
local new_epoch, new_mark, keep, after, limit, most, newest = struct.unpack('>c6c8I8I8I8I8B', ARGV[1])
if not meta then
  begin(new_epoch, new_mark)
  save(keep)
  redis.call('DEL', KEYS[2], KEYS[3])
  return {{position(), 0, now, {{}}}}
end
redis.call('PEXPIRE', KEYS[1], keep)
if revision > 0 then redis.call('PEXPIRE', KEYS[3], keep) end
{_WHOLE}
local head, found = first, {{}}
if first <= offset and now - last >= age then
  first = offset + 1
elseif limit > 0 and now - oldest >= age then
  local high = offset
  while first < high do
    local middle = math.floor((first + high) / 2)
    if now - time_of(redis.call('LINDEX', KEYS[2], middle - head)) < age then
      high = middle
    else
      first = middle + 1
    end
  end
end
local from, to = math.max(first, after + 1), offset
if newest == 1 then from = math.max(from, to - limit + 1) else to = math.min(to, from + limit - 1) end
if limit > 0 and from <= to then
  local all = redis.call('LRANGE', KEYS[2], from - head, to - head)
  local begins, ends, step, sum = 1, #all, 1, 0
  if newest == 1 then begins, ends, step = #all, 1, -1 end
  local stop = ends
  for index = begins, ends, step do
    sum = sum + #all[index] - 40
    if index ~= begins and sum > most then
      stop = index - step
      break
    end
  end
  for index = math.min(begins, stop), math.max(begins, stop) do found[#found + 1] = all[index] end
end
return {{position(), evicted, now, found}}
""")
"""KEYS: meta, log, removals. ARGV: `pack_read`. Position, largest evicted offset, time, entries."""

CHANGE: Final = Script(f"""{_LOAD}
local new_epoch, new_mark, keep = struct.unpack('>c6c8I8', ARGV[1])
if not meta then begin(new_epoch, new_mark) end
{_WHOLE}
local before = revision
revision = revision + 1
if ARGV[4] == '' then cleared, evicted, first, bytes = offset, offset, offset + 1, 0 end
save(keep)
if not meta then redis.call('DEL', KEYS[2], KEYS[3]) end
if redis.call('HLEN', KEYS[3]) > {MAX_REMOVED} then redis.call('DEL', KEYS[3]) end
redis.call('HSETNX', KEYS[3], '', before)
if ARGV[4] == '' then redis.call('DEL', KEYS[2]) else redis.call('HSET', KEYS[3], ARGV[4], revision) end
redis.call('PEXPIRE', KEYS[3], keep)
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[2], ARGV[3] .. position() .. struct.pack('>c8I8', mark, now)) end
return {{position(), evicted, now}}
""")
"""KEYS: meta, log, removals. ARGV: `pack_change`, topic, notice, and the user that is removed; empty to clear."""

LOOKUP: Final = Script("""
local meta = redis.call('GET', KEYS[1])
if not meta then return 0 end
local revision = struct.unpack('>I3', meta, 14)
if revision == 0 then return 0 end
local found = redis.call('HMGET', KEYS[2], '', ARGV[1])
return math.max(tonumber(found[1] or revision), tonumber(found[2] or 0))
""")
"""KEYS: meta, removals. ARGV: the user."""

CHECK: Final = Script("""
local lacking = {}
if redis.acl_check_cmd then
  for _, call in ipairs({{'TIME'}, {'GET', ARGV[1]}, {'SET', ARGV[1], '', 'PX', '1'}, {'DEL', ARGV[1]},
    {'PEXPIRE', ARGV[1], '1'}, {'RPUSH', ARGV[1], ''}, {'LPOP', ARGV[1]}, {'LLEN', ARGV[1]}, {'LINDEX', ARGV[1], '0'},
    {'LRANGE', ARGV[1], '0', '0'}, {'LTRIM', ARGV[1], '0', '0'}, {'HSET', ARGV[1], '', ''},
    {'HSETNX', ARGV[1], '', ''}, {'HMGET', ARGV[1], ''}, {'HLEN', ARGV[1]}, {'PUBLISH', ARGV[2], ''}}) do
    if not redis.acl_check_cmd(unpack(call)) then lacking[#lacking + 1] = call[1] end
  end
end
return lacking
""")
"""ARGV: a key and a topic. What the login may not do there; nothing on Redis 6, which does not tell."""
