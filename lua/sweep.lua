-- Releases orders whose hold has ended, earliest first. Orders of one step are checked together.
--
-- KEYS  1 stock hash  2 orders  3 due  4 buyers  5 log
-- ARGV  1 epoch  2 the most orders to check; those of the first step always
-- Reply how many orders were checked, how many of them were released
-- Errors: those of sale.lua
-- Keep in step with `sweep` in src/ledger/model.rs.

local sale, err = read_sound_sale(KEYS[1])
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end

local now, most = string.format('%.0f', sale.now_ms), tonumber(ARGV[2])
local steps, ids = {}, {}
while true do
  local step = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', #steps, 1)[1]
  if not step then
    break
  end
  local orders = {}
  for id in string.gmatch(step, ' (%x+)') do
    orders[#orders + 1] = id
  end
  if #steps > 0 and #ids + #orders > most then
    break
  end
  steps[#steps + 1] = step
  for _, id in ipairs(orders) do
    ids[#ids + 1] = id
  end
end
if #steps == 0 then
  return { 0, 0 }
end

local held, names = {}, {}
local known = {}
for i, record in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  local order = record and read_record(record)
  if record and not order then
    return redis.error_reply('DAMAGED the record of order ' .. ids[i] .. ' is not one of ours')
  end
  -- An order that was deleted by hand has nothing to release.
  if order and order.state == 'HELD' then
    order.id = ids[i]
    held[#held + 1] = order
    if order.buyer ~= '' and not known[order.buyer] then
      known[order.buyer] = true
      names[#names + 1] = order.buyer
    end
  end
end
local has
has, err = read_buyers(KEYS[4], names)
if not has then
  return err
end

-- Nothing can fail from here on.
if #held > 0 then
  local fields, lines = {}, {}
  for _, order in ipairs(held) do
    order.state, order.detail = 'RELEASED', 'expired'
    sale.sold = math.max(0, sale.sold - order.quantity)
    fields[#fields + 1] = order.id
    fields[#fields + 1] = record_of(order)
    lines[#lines + 1] = order.id
    lines[#lines + 1] = string.format('%.0f ', order.quantity) .. order.buyer
    local buyer = has[order.buyer]
    if buyer then
      buyer.tickets, buyer.unpaid = buyer.tickets - order.quantity, buyer.unpaid - 1
    end
  end
  sale.version = sale.version + 1
  append(KEYS[5], sale, 'kind', 'released', 'reason', 'expired', unpack(lines))
  redis.call('HSET', KEYS[2], unpack(fields))
  write_buyers(KEYS[4], has, has)
  write_sale(KEYS[1], sale)
end
redis.call('ZREM', KEYS[3], unpack(steps))
return { #ids, #held }
