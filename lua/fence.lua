-- Fences a sale: nothing is sold or settled until it is reconciled. An existing fence keeps its reason.
--
-- KEYS  1 stock hash
-- ARGV  1 epoch  2 why
-- Reply 1 if it is new, else 0
-- Errors: those of sale.lua

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
return redis.call('HSETNX', KEYS[1], 'fence', ARGV[2])
