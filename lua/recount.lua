-- Sets the counters, deadlines and buyers of a fenced sale to what its log gives.
--
-- KEYS  1 stock hash  2 due  3 buyers  4 log
-- ARGV  1 epoch  2 version that the caller has read  3 sold  4 paid
--       5 tickets that were added to the total by hand and are not in the log; may be negative. Only the log is changed
--       6 how many deadlines follow: order id, end of its hold in ms
--       then buyers: name, "TICKETS UNPAID"
-- Reply the version
-- Errors: those of sale.lua; CHANGED too if the sale is not fenced or has another version

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] or not sale.fence or whole(ARGV[2]) ~= sale.version then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
local sold, paid, by_hand, deadlines = whole(ARGV[3]), whole(ARGV[4]), tonumber(ARGV[5]), whole(ARGV[6])
if not sold or not paid or not by_hand or not deadlines then
  return redis.error_reply('DAMAGED counters that are no whole numbers')
end
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[3])

-- Nothing can fail from here on.
sale.sold, sale.paid = sold, paid
if by_hand ~= 0 then
  sale.version = sale.version + 1
  append(KEYS[4], sale, 'kind', 'stock', 'change_id', string.format('by hand, found at %.0f', sale.version),
    'delta', ARGV[5])
end
local at = 7
for _ = 1, deadlines do
  redis.call('ZADD', KEYS[2], ARGV[at + 1], string.format('%016.0f ', sale.version) .. ARGV[at])
  at = at + 2
end
while ARGV[at + 1] do
  if ARGV[at + 1] == '0 0' then
    redis.call('HDEL', KEYS[3], ARGV[at])
  else
    redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
  end
  at = at + 2
end
write_sale(KEYS[1], sale)
return sale.version
