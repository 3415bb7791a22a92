"""What Redis does for the directory: one script, of which every call is done at once and between no others."""

from __future__ import annotations

SCRIPT = """
-- KEYS[1]: what all names begin with; ARGV[1]: the operation; ARGV[2]: the process that asks; then see each operation.
-- sessions             hash, "process|number" -> [channel, user, conversation], empty texts for what is not known
-- of:{process}         set of its fields of sessions
-- user:{user}          set of the user's fields of sessions
-- about:{conversation} hash, field of sessions -> user; "@" -> time of the last note
-- processes            sorted set, process -> when its lease ends
-- tickets, holders     sorted set, key -> when it ends; hash, key -> holder
local p, operation, me = KEYS[1], ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local sessions, processes, tickets, holders = p .. 'sessions', p .. 'processes', p .. 'tickets', p .. 'holders'
local KEPT = 172800 -- seconds: no session lasts two days, so what nobody removed goes by itself

local function row_of(field)
  local text = redis.call('HGET', sessions, field)
  return text and cjson.decode(text) or nil
end

local function forget(field)
  local row = row_of(field)
  if not row then return end
  redis.call('HDEL', sessions, field)
  if row[2] ~= '' then redis.call('SREM', p .. 'user:' .. row[2], field) end
  if row[3] ~= '' then
    local about = p .. 'about:' .. row[3]
    redis.call('HDEL', about, field)
    if redis.call('HLEN', about) == 1 and redis.call('HEXISTS', about, '@') == 1 then redis.call('DEL', about) end
  end
end

local function put(process, number, row)
  local field, mine = process .. '|' .. number, p .. 'of:' .. process
  redis.call('HSET', sessions, field, cjson.encode(row))
  redis.call('SADD', mine, field)
  redis.call('EXPIRE', mine, KEPT)
  if row[2] ~= '' then
    redis.call('SADD', p .. 'user:' .. row[2], field)
    redis.call('EXPIRE', p .. 'user:' .. row[2], KEPT)
  end
  if row[3] ~= '' then
    redis.call('HSET', p .. 'about:' .. row[3], field, row[2])
    redis.call('EXPIRE', p .. 'about:' .. row[3], KEPT)
  end
end

local function bury(process)
  for _, field in ipairs(redis.call('SMEMBERS', p .. 'of:' .. process)) do forget(field) end
  redis.call('DEL', p .. 'of:' .. process)
  redis.call('ZREM', processes, process)
end

local function bury_dead()
  local dead = redis.call('ZRANGEBYSCORE', processes, '-inf', now)
  for _, process in ipairs(dead) do bury(process) end
  return #dead > 0
end

local function is_room() return redis.call('HLEN', sessions) < tonumber(ARGV[3]) end

local function is_room_for(user, limit) return redis.call('SCARD', p .. 'user:' .. user) < tonumber(limit) end

local function after_burial(question, ...)
  return (question(...) or (bury_dead() and question(...))) and 1 or 0
end

-- tell: lease, then number, channel, user, conversation of every session: all that the process has
if operation == 'tell' then
  bury(me)
  redis.call('ZADD', processes, now + tonumber(ARGV[3]), me)
  for i = 4, #ARGV, 4 do put(me, ARGV[i], {ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]}) end
  return 1
end

-- leave: nothing; the process ends
if operation == 'leave' then
  bury(me)
  return 1
end

-- Whoever is not known was taken for dead, or Redis began anew: it must tell all it has.
if not redis.call('ZSCORE', processes, me) then return -1 end

-- beat: lease, then numbers of sessions that are over
if operation == 'beat' then
  redis.call('ZADD', processes, now + tonumber(ARGV[3]), me)
  for i = 4, #ARGV do
    forget(me .. '|' .. ARGV[i])
    redis.call('SREM', p .. 'of:' .. me, me .. '|' .. ARGV[i])
  end
  return 1
end

-- take: most sessions, number, channel
if operation == 'take' then
  if row_of(me .. '|' .. ARGV[4]) then return 1 end
  if after_burial(is_room) == 0 then return 0 end
  put(me, ARGV[4], {ARGV[5], '', ''})
  return 1
end

-- user: most sessions of a user, number, user; a session that is not there must be told again
if operation == 'user' then
  local row = row_of(me .. '|' .. ARGV[4])
  if not row then return -1 end
  if row[2] == ARGV[5] then return 1 end
  if after_burial(is_room_for, ARGV[5], ARGV[3]) == 0 then return 0 end
  put(me, ARGV[4], {row[1], ARGV[5], row[3]})
  return 1
end

-- note: number, conversation; returns when, and the other processes with the same user's
if operation == 'note' then
  local row, about = row_of(me .. '|' .. ARGV[3]), p .. 'about:' .. ARGV[4]
  if not row then return {tostring(clock[1])} end
  local last, others = tonumber(redis.call('HGET', about, '@') or 0), {}
  if now <= last then now = last + 0.000001 end
  local found = redis.call('HGETALL', about)
  for i = 1, #found, 2 do
    local process = found[i]:match('^(.-)|')
    if process and process ~= me and found[i + 1] == row[2] then others[process] = true end
  end
  local at = string.format('%.6f', now)
  redis.call('HSET', about, '@', at)
  put(me, ARGV[3], {row[1], row[2], ARGV[4]})
  local answer = {at}
  for process in pairs(others) do answer[#answer + 1] = process end
  return answer
end

-- room: most sessions, most of a user, user or an empty text
if operation == 'room' then
  if ARGV[5] == '' then return after_burial(is_room) end
  return after_burial(is_room_for, ARGV[5], ARGV[4])
end

-- counts: returns how many, then channel and how many of it talk
if operation == 'counts' then
  bury_dead()
  local all, talking = redis.call('HVALS', sessions), {}
  for _, text in ipairs(all) do
    local row = cjson.decode(text)
    talking[row[1]] = (talking[row[1]] or 0) + (row[3] ~= '' and 1 or 0)
  end
  local answer = {#all}
  for channel, count in pairs(talking) do
    answer[#answer + 1] = channel
    answer[#answer + 1] = count
  end
  return answer
end

local function drop(keys)
  for _, key in ipairs(keys) do
    redis.call('ZREM', tickets, key)
    redis.call('HDEL', holders, key)
  end
end

-- put: most tickets, life in seconds, key, holder
if operation == 'put' then
  drop(redis.call('ZRANGEBYSCORE', tickets, '-inf', now))
  local over = redis.call('ZCARD', tickets) - tonumber(ARGV[3]) + 1
  if over > 0 then drop(redis.call('ZRANGE', tickets, 0, over - 1)) end
  redis.call('ZADD', tickets, now + tonumber(ARGV[4]), ARGV[5])
  redis.call('HSET', holders, ARGV[5], ARGV[6])
  return 1
end

-- redeem: key; returns its holder
if operation == 'redeem' then
  local ends, holder = redis.call('ZSCORE', tickets, ARGV[3]), redis.call('HGET', holders, ARGV[3])
  drop({ARGV[3]})
  return ends and tonumber(ends) >= now and holder or false
end

return redis.error_reply('no such operation')
"""
"""Names are made of what the arguments say, so it is for one Redis, not for a Redis Cluster."""
