-- Opens a sale for edges: creates it if there is none, adopts one that was created by hand, and leaves an open one
-- alone.
--
-- KEYS  1 stock hash  2 orders  3 due  4 buyers  5 log  6 changes
--       7 to 11 names under which what an earlier sale left in 2 to 6 is put away
-- ARGV  1 total, or '' if a sale that is not there is not to be made
--       2 epoch and 3 secret, to be taken if the sale has none
-- Reply {epoch, secret}
-- Errors: those of sale.lua

if ARGV[1] ~= '' and not whole(ARGV[1]) then
  return redis.error_reply('DAMAGED total is not a whole number')
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  if ARGV[1] == '' then
    return redis.error_reply('MISSING ' .. KEYS[1])
  end
  redis.call('HSET', KEYS[1], 'ticket_total_nums', ARGV[1], 'ticket_sold_nums', '0')
end

local in_care = redis.call('HMGET', KEYS[1], 'epoch', 'secret')
if in_care[1] and in_care[2] then
  return in_care
end

local sale, err = read_sale(KEYS[1])
if not sale then
  return err
end

-- Orders of an earlier sale of this name are kept: they are neither sold again nor counted nor deleted.
for i = 2, 6 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[i + 5])
  end
end
sale.version = 1
append(KEYS[5], sale, 'kind', 'opened', 'total', string.format('%.0f', sale.total),
  'sold', string.format('%.0f', sale.sold))
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'secret', ARGV[3], 'version', '1',
  'ticket_sold_nums', string.format('%.0f', sale.sold), 'paid', '0', 'clock_ms', string.format('%.0f', sale.now_ms))
return { ARGV[2], ARGV[3] }
