-- Marks all events that are set aside for a retry.
--
-- KEYS  and ARGV 1: see outbox.lua
-- Reply their number
-- Errors: those of sale.lua

local sale, outbox = read_outbox()
if not sale then
  return outbox
end
-- Fields and values; there are at most a thousand.
local aside = redis.call('HGETALL', ASIDE)
if #aside > 0 then
  redis.call('HSET', AGAIN, unpack(aside))
  redis.call('DEL', ASIDE)
end
return outbox.aside + outbox.again
