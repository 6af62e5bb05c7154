-- Releases an unpaid order. An id without an order is given up: no order can be made under it any more.
--
-- KEYS  1 stock hash  2 orders  3 buyers  4 log
-- ARGV  1 order id
-- Reply a code and a value:
--       1 released        the order's record, now or from an earlier step
--       2 given up        0
--       3 already paid    its record
--       then number and time of the log entry, if this step wrote one
-- Errors: those of sale.lua
-- Keep in step with `cancel` in src/ledger/model.rs.

local sale, err = read_sound_sale(KEYS[1])
if not sale then
  return err
end
local id = ARGV[1]
local order
order, err = read_order(KEYS[2], id)
if order == nil then
  return err
end
if not order then
  sale.version = sale.version + 1
  append(KEYS[4], sale, 'kind', 'given_up', 'order', id)
  redis.call('HSET', KEYS[2], id, 'RELEASED 0 0 given_up ')
  write_sale(KEYS[1], sale)
  return { 2, 0, sale.version, sale.now_ms }
end
if order.detail == 'given_up' then
  return { 2, 0 }
elseif order.state == 'PAID' then
  return { 3, record_of(order) }
elseif order.state == 'RELEASED' then
  return { 1, record_of(order) }
end

local has
has, err = read_buyers(KEYS[3], order.buyer ~= '' and { order.buyer } or {})
if not has then
  return err
end
-- Nothing can fail from here on.
sale.version = sale.version + 1
sale.sold = math.max(0, sale.sold - order.quantity)
local buyer = has[order.buyer]
if buyer then
  buyer.tickets, buyer.unpaid = buyer.tickets - order.quantity, buyer.unpaid - 1
end
order.state, order.detail = 'RELEASED', 'cancelled'
append(KEYS[4], sale, 'kind', 'released', 'reason', 'cancelled',
  id, string.format('%.0f ', order.quantity) .. order.buyer)
redis.call('HSET', KEYS[2], id, record_of(order))
write_buyers(KEYS[3], has, has)
write_sale(KEYS[1], sale)
return { 1, record_of(order), sale.version, sale.now_ms }
