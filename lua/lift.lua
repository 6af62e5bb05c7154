-- Lifts the fence of a sale and counts the reconciliation. Sales do not resume at once: as under a new primary (see
-- authorize.lua), every edge first has time to report what it knows.
--
-- KEYS  1 stock hash
-- ARGV  1 epoch  2 version that the caller has read
-- Reply the generation
-- Errors: those of sale.lua; CHANGED too if the sale is not fenced or has another version

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] or not sale.fence or whole(ARGV[2]) ~= sale.version then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
redis.call('HDEL', KEYS[1], 'fence')
redis.call('HSET', KEYS[1], 'reign_since_ms', string.format('%.0f', sale.now_ms))
return redis.call('HINCRBY', KEYS[1], 'generation', 1)
