-- Adds tickets to a sale or removes unsold ones, once for each change id. From a fenced sale none are removed, because
-- it is not known which are unsold.
--
-- KEYS  1 stock hash  2 changes  3 log
-- ARGV  1 change id  2 delta, a whole number that may be negative  3 the highest total
-- Reply 1 changed  2 this change was made before
--       3 this id was used for another change  4 below the sold quantity  5 above the highest total
-- Errors: those of sale.lua

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
local delta = tonumber(ARGV[2])
if not delta or not string.find(ARGV[2], '^-?%d+$') then
  return redis.error_reply('DAMAGED delta is not a whole number')
end
local made = redis.call('HGET', KEYS[2], ARGV[1])
if made then
  return made == ARGV[2] and 2 or 3
end
if delta < 0 and sale.fence then
  return redis.error_reply('FENCED ' .. sale.fence)
end
local total = sale.total + delta
if total > tonumber(ARGV[3]) then
  return 5
end
if total < 0 or total < sale.sold then
  return 4
end

sale.version = sale.version + 1
append(KEYS[3], sale, 'kind', 'stock', 'change_id', ARGV[1], 'delta', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[1], 'ticket_total_nums', string.format('%.0f', total))
write_sale(KEYS[1], sale)
return 1
