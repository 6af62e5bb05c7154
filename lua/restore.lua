-- Writes orders that a fenced sale lost or has in an older state, and entries for version numbers that it lost.
--
-- KEYS  1 stock hash  2 orders  3 due  4 buyers  5 log
-- ARGV  1 epoch  2 version that the caller has read
--       3 how many `lost` entries to append
--       then for each order: id and record (see sale.lua), replacing what is there
-- Reply the version
-- Errors: those of sale.lua; CHANGED too if the sale is not fenced or has another version
-- Keep in step with `apply` in src/ledger/model.rs.

local sale, err = read_opened_sale(KEYS[1])
if not sale then
  return err
end
local fill = whole(ARGV[3])
if sale.epoch ~= ARGV[1] or not sale.fence or whole(ARGV[2]) ~= sale.version then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
local ids, orders, names = {}, {}, {}
local known = {}
local function add_name(order)
  if order.buyer ~= '' and not known[order.buyer] then
    known[order.buyer] = true
    names[#names + 1] = order.buyer
  end
end
for i = 4, #ARGV, 2 do
  local order = ARGV[i + 1] and read_record(ARGV[i + 1])
  if not order or not fill then
    return redis.error_reply('DAMAGED the record of order ' .. ARGV[i])
  end
  ids[#ids + 1], orders[#orders + 1] = ARGV[i], order
  add_name(order)
end
redis.call('ZCARD', KEYS[3])
local before = {}
if #ids > 0 then
  for i, record in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    before[i] = record and read_record(record)
    if record and not before[i] then
      return redis.error_reply('DAMAGED the record of order ' .. ids[i] .. ' is not one of ours')
    end
    if before[i] then
      add_name(before[i])
    end
  end
end
local has
has, err = read_buyers(KEYS[4], names)
if not has then
  return err
end

-- Nothing can fail from here on.
local function count(order, sign)
  if order.state == 'RELEASED' then
    return
  end
  sale.sold = math.max(0, sale.sold + sign * order.quantity)
  if order.state == 'PAID' then
    sale.paid = math.max(0, sale.paid + sign * order.quantity)
  end
  local buyer = has[order.buyer]
  if buyer then
    buyer.tickets = buyer.tickets + sign * order.quantity
    buyer.unpaid = buyer.unpaid + (order.state == 'HELD' and sign or 0)
  end
end
if #ids > 0 then
  sale.version = sale.version + 1
  local fields = {}
  for i, order in ipairs(orders) do
    fields[#fields + 1] = ids[i]
    fields[#fields + 1] = record_of(order)
    if before[i] then
      count(before[i], -1)
    end
    count(order, 1)
  end
  append(KEYS[5], sale, 'kind', 'restored', 'orders', tostring(#ids), unpack(fields))
  redis.call('HSET', KEYS[2], unpack(fields))
  for i, order in ipairs(orders) do
    if order.state == 'HELD' and not (before[i] and before[i].state == 'HELD') then
      redis.call('ZADD', KEYS[3], order.expires_at_ms, string.format('%016.0f ', sale.version) .. ids[i])
    end
  end
  write_buyers(KEYS[4], has, has)
end
for _ = 1, fill do
  sale.version = sale.version + 1
  append(KEYS[5], sale, 'kind', 'lost')
end
write_sale(KEYS[1], sale)
return sale.version
