"""Redis scripts: the steps of a store of streams in Lua, for Redis 6.2 to 8 and Valkey 8 and 9. Knows no connection.

What a stream has in the engine, under the hash tag of its topic, so that it is on the server which carries the topic:

* ``{topic}:stream:…``, what is known of it, until the id is forgotten: writer (16 bytes), pieces (8), length (8), how
  it ended (1) and when (8), until when the writer lives (8), how long pieces are kept (8) and the id after them (8),
  when it began (8), bytes of the id (2), id and room. Numbers are in network order, times in milliseconds.
* ``{topic}:pieces:…``, a list of payloads, until they are gone.
* ``{topic}:streams``, a sorted set of the topic's streams in the order in which they began.

And under a tag of its own, as an id is the same one in every topic:

* ``{…}:at``, the *claim* of the id: when it was made (8), and of the stream that may begin the writer (16), its times
  (3 of 8), bytes of the topic (2), topic and room. It is there for as long as the stream may be known, and longer.
* ``{…}:no``, while the id is forbidden.

The first command that changes anything takes memory, and PUBLISH comes last: see `velocity_ws.history.redis_scripts`.
Expiries are set where a stream begins, is renewed and ends, and with its first piece; no other piece sets any.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from velocity_ws.history.redis_scripts import Script
from velocity_ws.streams.items import MAX_LISTED
from velocity_ws.streams.pieces import HEADER_SIZE, NOTED

__all__ = [
    "ALL",
    "APPEND",
    "AT",
    "BEGIN",
    "BETWEEN",
    "CHECK",
    "CLAIM",
    "DELETE",
    "END",
    "FORBID",
    "KEEP",
    "LIST",
    "LOOK",
    "READ",
    "RENEW",
    "TAIL",
    "TAKEN",
    "UNCLAIM",
    "pack_head_size",
    "pack_times",
    "unpack_known",
]

TAKEN: Final = 16
"""What is added to how a stream ended, where a writer's call was done."""
BETWEEN: Final = 60_000
"""Milliseconds that may pass between the two steps by which a stream begins, as where either server is held up."""
TAIL: Final = 41
"""Bytes of the name of a stream's key behind its topic."""
pack_times = Struct(">QQQ").pack
"""The lease, how long pieces are kept, and the id after them."""
pack_head_size = Struct(">I").pack
unpack_known = Struct(">16sQQBQQQQQH").unpack_from
"""What is known of a stream, without id and room."""

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
_KNOWN: Final = f"""{_NOW}
local KNOWN, SAID = '>c16I8I8BI8I8I8I8', '>I8I8I4BB'
local function taken(key, list, count, pieces, length, how, ended, ttl, memory)
  if count == pieces + 1 then
    if how > 0 then
      redis.call('PEXPIRE', list, ttl)
      redis.call('PEXPIRE', key, ttl + memory)
    end
    redis.call('SETRANGE', key, 16, struct.pack('>I8I8BI8', count, length, how, ended))
    return true
  end
  redis.call('DEL', list)
  redis.call('SETRANGE', key, 16, struct.pack('>I8I8BI8', pieces, length, 4, 0))
  return false
end
"""
"""The last function is for what was pushed: it takes it, or finds that the engine has lost what was before it, so that
the stream has ended, and is gone."""

CLAIM: Final = Script(f"""{_NOW}
local claim = redis.call('GET', KEYS[1])
if not claim or claim == ARGV[1] then
  claim = struct.pack('>I8', now) .. ARGV[2]
  redis.call('SET', KEYS[1], claim, 'PX', ARGV[3])
else
  local lease, ttl, memory = struct.unpack('>I8I8I8', claim, 25)
  local keep = math.max(tonumber(ARGV[3]), lease + 2 * ttl + memory + {BETWEEN})
  if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
end
return {{claim, now, redis.call('EXISTS', KEYS[2])}}
""")
"""KEYS: at, no. ARGV: the claim that is to be replaced, or empty; the own one without its time; for how long. The claim
that is there then, the time, whether the id is forbidden."""

AT: Final = Script("return redis.call('GET', KEYS[1])")
"""KEYS: at. The claim that is there."""

KEEP: Final = Script("""
local keep = tonumber(ARGV[1])
if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
""")
"""KEYS: at. ARGV: for how long at least, as one that is not the writer renews nothing."""

FORBID: Final = Script("return redis.call('SET', KEYS[1], '', 'PX', ARGV[1])")
"""KEYS: no. ARGV: for how long."""

BEGIN: Final = Script(f"""{_NOW}
local known = redis.call('GET', KEYS[1])
if not known and ARGV[1] ~= '' then
  local lease, ttl, memory = struct.unpack('>I8I8I8', ARGV[1])
  known = ARGV[2] .. struct.pack('>I8I8BI8I8', 0, 0, 0, 0, now + lease) .. ARGV[1]:sub(9) .. struct.pack('>I8', now)
    .. ARGV[3]
  redis.call('SET', KEYS[1], known, 'PX', lease + ttl + memory)
  redis.call('DEL', KEYS[2])
  local score = clock[1] * 1000000 + clock[2]
  local newest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if newest[2] then score = math.max(score, newest[2] + 1) end
  redis.call('ZADD', KEYS[3], score, ARGV[4])
  local keep = lease + 2 * ttl
  if redis.call('PTTL', KEYS[3]) < keep then redis.call('PEXPIRE', KEYS[3], keep) end
  if redis.call('ZCARD', KEYS[3]) > {2 * MAX_LISTED} then
    for _, name in ipairs(redis.call('ZREVRANGE', KEYS[3], 0, -1)) do
      if redis.call('EXISTS', KEYS[1]:sub(1, -33) .. name) == 0 then redis.call('ZREM', KEYS[3], name) end
    end
    redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -{2 * MAX_LISTED + 1})
  end
end
return {{now, known, redis.call('LLEN', KEYS[2])}}
""")
"""KEYS: stream, pieces, streams. ARGV: `pack_times`, or empty to begin none; writer; size of the id, id and room; what
the stream is among those of the topic. The time, what is known, how many pieces are there."""

APPEND: Final = Script(f"""{_KNOWN}
local function append(key, list, said)
  local known = redis.call('GETRANGE', key, 0, 64)
  if known == '' then return 0 end
  local writer, pieces, length, ended, at, alive, ttl, memory = struct.unpack(KNOWN, known)
  if writer ~= said:sub(1, 16) then return 0 end
  local from = struct.unpack('>I4', said, 17) + 21
  local number, start, more, _, how = struct.unpack(SAID, said, from)
  local payload = said:sub(from)
  if number ~= pieces or ended > 0 or now >= alive + ttl then
    if number == pieces - 1 and redis.call('LINDEX', list, -1) == payload then return {TAKEN} + ended end
    return ended
  end
  local count = redis.pcall('RPUSH', list, payload)
  if type(count) == 'table' then return count.err end
  if not taken(key, list, count, pieces, start + more, how, now, ttl, memory) then return 4 end
  if count == 1 and how == 0 then redis.call('PEXPIRE', list, alive + ttl - now) end
  redis.call('PUBLISH', key:sub(2, -{TAIL + 1}), said:sub(21))
  return {TAKEN} + how
end
local results = {{}}
for index, said in ipairs(ARGV) do
  results[index] = append(KEYS[2 * index - 1], KEYS[2 * index], said)
end
return results
""")
"""KEYS: stream and pieces, for each. ARGV: for each writer, `pack_head_size`, head and payload. For each how the stream
has ended, and `TAKEN` beside it; or the text of an error."""

RENEW: Final = Script(f"""{_KNOWN}
local known = redis.call('GETRANGE', KEYS[1], 0, 64)
if known == '' then return 0 end
local writer, pieces, length, ended, at, alive, ttl = struct.unpack(KNOWN, known)
if writer ~= ARGV[1] then return 0 end
if ended > 0 or now >= alive + ttl then return ended end
local lease, kept, memory = struct.unpack('>I8I8I8', ARGV[2])
redis.call('PEXPIRE', KEYS[1], lease + kept + memory)
redis.call('PEXPIRE', KEYS[2], lease + kept)
local keep = lease + 2 * kept
if redis.call('PTTL', KEYS[3]) < keep then redis.call('PEXPIRE', KEYS[3], keep) end
redis.call('SETRANGE', KEYS[1], 41, struct.pack('>I8', now + lease) .. ARGV[2]:sub(9))
return {TAKEN}
""")
"""KEYS: stream, pieces, streams. ARGV: writer, `pack_times`. As for one of `APPEND`. What takes memory comes last here:
a writer does not die because the engine is full."""

END: Final = Script(f"""{_KNOWN}
local known = redis.call('GETRANGE', KEYS[1], 0, 64)
if known ~= '' then
  local _, pieces, length, ended, at, alive, ttl, memory = struct.unpack(KNOWN, known)
  if ended == 0 and now < alive + ttl and (ARGV[2] == '' or now >= alive) then
    local how = tonumber(ARGV[1])
    local payload = struct.pack(SAID, pieces, length, 0, 0, how)
    local count = redis.call('RPUSH', KEYS[2], payload)
    if taken(KEYS[1], KEYS[2], count, pieces, length, how, now, ttl, memory) then
      redis.call('PUBLISH', KEYS[1]:sub(2, -{TAIL + 1}), ARGV[3] .. payload)
    end
  end
end
return {{now, redis.call('GET', KEYS[1]), redis.call('LLEN', KEYS[2])}}
""")
"""KEYS: stream, pieces. ARGV: how it ends; whether only that of a dead writer, else empty; head. As `BEGIN`."""

UNCLAIM: Final = Script("""
local claim = redis.call('GET', KEYS[1])
if claim and claim:sub(9, 24) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
"""KEYS: at. ARGV: writer. Takes back its claim."""

DELETE: Final = Script("""
if redis.call('GETRANGE', KEYS[1], 0, 15) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
""")
"""KEYS: stream, pieces, streams. ARGV: writer; what the stream is among those of the topic."""

LOOK: Final = Script(f"""{_NOW}
local last, note = redis.call('LINDEX', KEYS[2], -1), ''
if last and last:byte({HEADER_SIZE - 1}) >= {NOTED} then
  note = last:sub({HEADER_SIZE + 5}, {HEADER_SIZE + 4} + struct.unpack('>I4', last, {HEADER_SIZE + 1}))
end
return {{now, redis.call('GET', KEYS[1]), redis.call('LLEN', KEYS[2]), note}}
""")
"""KEYS: stream, pieces. As `BEGIN`, and the note of the last piece."""

READ: Final = Script(f"""{_NOW}
local known = redis.call('GET', KEYS[1])
local after, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local count = redis.call('LLEN', KEYS[2])
local first, high = 0, count
while first + 1 < high do
  local middle = math.floor((first + high) / 2)
  if struct.unpack('>I8', redis.call('LINDEX', KEYS[2], middle), 9) <= after then
    first = middle
  else
    high = middle
  end
end
local found, sum, step = {{}}, 0, 1
while known and first < count do
  for _, payload in ipairs(redis.call('LRANGE', KEYS[2], first, first + step - 1)) do
    sum = sum + #payload
    if #found > 0 and sum > most then return {{now, known, count, found}} end
    found[#found + 1] = payload
  end
  first = first + step
  step = math.max(1, math.min(100, math.floor((most - sum) * #found / sum)))
end
return {{now, known, count, found}}
""")
"""KEYS: stream, pieces. ARGV: `Query.after` and `Query.max_bytes`. As `BEGIN`, and payloads."""

LIST: Final = Script(f"""{_KNOWN}
local found, first = {{}}, 0
local tag = KEYS[1]:sub(1, -8)
while true do
  local names = redis.call('ZREVRANGE', KEYS[1], first, first + 99)
  for _, name in ipairs(names) do
    local known = redis.call('GET', tag .. 'stream:' .. name)
    local is_there = false
    if known then
      local _, _, _, ended, at, alive, ttl = struct.unpack(KNOWN, known)
      if ended > 0 then is_there = now < at + ttl else is_there = now < alive + ttl end
    end
    if is_there then
      found[#found + 1] = known
      found[#found + 1] = redis.call('LLEN', tag .. 'pieces:' .. name)
      first = first + 1
      if #found == {2 * MAX_LISTED} then return {{now, found}} end
    else
      redis.call('ZREM', KEYS[1], name)
    end
  end
  if #names < 100 then return {{now, found}} end
end
""")
"""KEYS: streams. The time, and for each stream what is known and how many pieces are there; those that are gone are
taken out. Its streams' keys are not named before, which a slot that is moved just now answers with an error."""

CHECK: Final = Script("""
local lacking = {}
if redis.acl_check_cmd then
  for _, call in ipairs({{'TIME'}, {'GET', ARGV[1]}, {'SET', ARGV[1], '', 'PX', '1'}, {'DEL', ARGV[1]},
    {'EXISTS', ARGV[1]}, {'PEXPIRE', ARGV[1], '1'}, {'PTTL', ARGV[1]}, {'GETRANGE', ARGV[1], '0', '1'},
    {'SETRANGE', ARGV[1], '0', ''}, {'RPUSH', ARGV[1], ''}, {'LLEN', ARGV[1]}, {'LINDEX', ARGV[1], '0'},
    {'LRANGE', ARGV[1], '0', '0'}, {'ZADD', ARGV[1], '0', ''}, {'ZCARD', ARGV[1]}, {'ZREM', ARGV[1], ''},
    {'ZREVRANGE', ARGV[1], '0', '0'}, {'ZREMRANGEBYRANK', ARGV[1], '0', '0'}, {'PUBLISH', ARGV[2], ''}}) do
    if not redis.acl_check_cmd(unpack(call)) then lacking[#lacking + 1] = call[1] end
  end
end
return lacking
""")
"""ARGV: a key and a topic. What the login may not do there; nothing on Redis 6, which does not tell."""

ALL: Final = (APPEND, AT, BEGIN, CLAIM, END, FORBID, DELETE, KEEP, LIST, LOOK, READ, RENEW, UNCLAIM)
"""Those that are called."""
