-- Takes or renews the lease on a sale's delivery, unless another edge has it.
--
-- KEYS  and ARGV 1: see outbox.lua
-- ARGV  2 the edge  3 length of its lease in ms, renewed once half of it is over
-- Reply the progress (see outbox.lua), 1 if the edge has the lease, else 0;
--       then, if it has, the ids of the events to retry, "SEQ PART"
-- Errors: those of sale.lua

local sale, outbox = read_outbox()
if not sale then
  return outbox
end
if sale.fence then
  return redis.error_reply('FENCED ' .. sale.fence)
end
local edge, lease_ms = ARGV[2], whole(ARGV[3])
if edge == '' or not lease_ms then
  return redis.error_reply('DAMAGED the lease is not one of an edge')
end

local oldest = oldest_of(sale, outbox)
if is_held(outbox) and outbox.owner ~= edge then
  local reply = progress(sale, outbox, oldest)
  reply[#reply + 1] = 0
  return reply
end

if not outbox.has_group then
  redis.call('XGROUP', 'CREATE', LOG, GROUP, '0', 'ENTRIESREAD', '0')
end
if outbox.owner ~= edge or outbox.left_ms * 2 <= lease_ms then
  redis.call('HSET', DELIVERY, 'owner', edge, 'until_ms', string.format('%.0f', sale.now_ms + lease_ms))
  outbox.owner, outbox.left_ms = edge, lease_ms
end
local reply = progress(sale, outbox, oldest)
reply[#reply + 1] = 1
reply[#reply + 1] = redis.call('HKEYS', AGAIN)
return reply
