-- Authorizes an edge to sell over a new connection, unless the ledger lost something that the edge knows; then it
-- fences the sale.
--
-- A primary is identified by its replication id, which is new whenever a Redis starts or is promoted (hash field
-- `reign`). Under a new primary, the sale sells nothing until all edges have had time to report what they know.
--
-- KEYS  1 stock hash  2 log
-- ARGV  1 epoch  2 id of the primary  3 generation that the edge knows, or '' if it knows nothing
--       4 the newest version that the edge knows  5 number and 6 time of the newest entry that it remembers, or 0
--       7 how long nothing is sold under a new primary, in ms
-- Reply generation: number of reconciliations of the sale; time to wait in ms. Always writes, so that WAIT has a write
--       to wait for.
-- Errors: those of sale.lua

local sale, err = read_sound_sale(KEYS[1])
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
local stored = redis.call('HMGET', KEYS[1], 'reign', 'reign_since_ms', 'generation')
local since, generation = whole(stored[2] or '0'), whole(stored[3] or '0')
local version, seq, quiet_ms = whole(ARGV[4]), whole(ARGV[5]), whole(ARGV[7])
if not since or not generation or not version or not seq or not quiet_ms then
  return redis.error_reply('DAMAGED ' .. KEYS[1] .. ' has a reign or a generation that is none')
end

-- Version numbers from before a reconciliation are not comparable; the edge looks for its orders instead.
if whole(ARGV[3]) == generation then
  local why
  if sale.version < version then
    why = string.format('the newest entry is %.0f, and there was a %.0f', sale.version, version)
  elseif seq > 0 then
    local id = string.format('%.0f-0', seq)
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
    if entry and entry[2][2] ~= ARGV[6] then
      why = string.format('entry %.0f is another than it was', seq)
    end
  end
  if why then
    redis.call('HSET', KEYS[1], 'fence', why)
    return redis.error_reply('FENCED ' .. why)
  end
end

if stored[1] ~= ARGV[2] then
  -- A sale without orders has nothing to lose.
  since = stored[1] and sale.now_ms or 0
  redis.call('HSET', KEYS[1], 'reign_since_ms', string.format('%.0f', since))
end
redis.call('HSET', KEYS[1], 'reign', ARGV[2])
return { generation, math.max(0, since + quiet_ms - sale.now_ms) }
