-- Reads a sale's counters and what its log says since the caller last read it, at one instant. Writes nothing.
--
-- KEYS  1 stock hash  2 log
-- ARGV  1 epoch, or '' for whatever sale is there  2 hold_ms  3 per_buyer  4 opens_at_ms or -1  5 closes_at_ms or -1
--       6 the newest entry that the caller has read  7 the most entries to bring
-- Reply the sale (see view in sale.lua), then the entries as XRANGE gives them
-- Errors: those of sale.lua

local sale, err = read_sale(KEYS[1], 2)
if not sale then
  return err
end
if ARGV[1] ~= '' and sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
local reply = view(sale)
local entries = {}
if tonumber(ARGV[6]) < sale.version and tonumber(ARGV[7]) > 0 then
  entries = redis.call('XRANGE', KEYS[2], '(' .. ARGV[6] .. '-0', '+', 'COUNT', ARGV[7])
end
reply[#reply + 1] = entries
return reply
