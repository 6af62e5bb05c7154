-- Opens, pauses or closes a sale. Setting the present state changes nothing.
--
-- KEYS  1 stock hash  2 log
-- ARGV  1 open | paused | closed
-- Reply 1 if the state was changed, else 0
-- Errors: those of sale.lua

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
if not STATES[ARGV[1]] then
  return redis.error_reply('DAMAGED state is none of open, paused, closed')
end
if sale.state == ARGV[1] then
  return 0
end
sale.version = sale.version + 1
append(KEYS[2], sale, 'kind', 'state', 'state', ARGV[1])
redis.call('HSET', KEYS[1], 'state', ARGV[1])
write_sale(KEYS[1], sale)
return 1
