-- Gives up the lease on a sale's delivery, if the edge has it.
--
-- KEYS  and ARGV 1: see outbox.lua
-- ARGV  2 the edge
-- Reply 1 if it had it, else 0
-- Errors: those of sale.lua

local sale, outbox = read_outbox()
if not sale then
  return outbox
end
if outbox.owner ~= ARGV[2] then
  return 0
end
redis.call('HDEL', DELIVERY, 'owner', 'until_ms')
return 1
