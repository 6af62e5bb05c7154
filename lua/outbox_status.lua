-- Reads the state of a sale's delivery. Writes nothing.
--
-- KEYS  and ARGV 1: see outbox.lua
-- Reply the progress (see outbox.lua), the events that are set aside, and those to retry: field and value, field and
--       value, ...
-- Errors: those of sale.lua

local sale, outbox = read_outbox()
if not sale then
  return outbox
end
local reply = progress(sale, outbox, oldest_of(sale, outbox))
reply[#reply + 1] = redis.call('HGETALL', ASIDE)
reply[#reply + 1] = redis.call('HGETALL', AGAIN)
return reply
