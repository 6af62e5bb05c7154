-- Confirms a payment of an order. The first payment wins; repeating it gives the same reply. A released order is taken
-- back if stock and limit allow it.
--
-- KEYS  1 stock hash  2 orders  3 buyers  4 log
-- ARGV  1 to 5 the caller's rules (see read_sale in sale.lua)  6 order id  7 payment's id
-- Reply a code and a value:
--       1 paid            the order's record, now or from an earlier confirmation of the same payment
--       2 taken back      its record
--       3 paid otherwise  the other payment's id
--       4 sold out        0
--       5 buyer limit     tickets that the buyer has
--       6 not enough      what is left
--       7 given up        0
--       8 no such order   0
--       then number and time of the log entry, if this step wrote one
-- Errors: those of sale.lua
-- Keep in step with `confirm` in src/ledger/model.rs.

local sale, err = read_sound_sale(KEYS[1], 1)
if not sale then
  return err
end
local id, payment = ARGV[6], ARGV[7]
if payment == '-' or not string.find(payment, '^[%w._:-]+$') then
  return redis.error_reply('DAMAGED the id of the payment for order ' .. id)
end
local order
order, err = read_order(KEYS[2], id)
if order == nil then
  return err
end
if not order then
  return { 8, 0 }
end
if order.state == 'PAID' then
  if order.detail == payment then
    return { 1, record_of(order) }
  end
  return { 3, order.detail }
end

local names = order.buyer ~= '' and { order.buyer } or {}
local has
has, err = read_buyers(KEYS[3], names)
if not has then
  return err
end
local buyer = has[order.buyer]
local retaken = order.state == 'RELEASED'
if retaken then
  local available = math.max(0, sale.total - sale.sold)
  if order.detail == 'given_up' then
    return { 7, 0 }
  elseif available == 0 then
    return { 4, 0 }
  elseif buyer and sale.per_buyer > 0 and buyer.tickets + order.quantity > sale.per_buyer then
    return { 5, buyer.tickets }
  elseif available < order.quantity then
    return { 6, available }
  end
end

-- Nothing can fail from here on.
sale.version = sale.version + 1
sale.paid = sale.paid + order.quantity
if retaken then
  sale.sold = sale.sold + order.quantity
end
if buyer then
  buyer.tickets = buyer.tickets + (retaken and order.quantity or 0)
  buyer.unpaid = buyer.unpaid - (retaken and 0 or 1)
end
order.state, order.detail = 'PAID', payment
append(KEYS[4], sale, 'kind', 'paid', 'order', id, 'quantity', string.format('%.0f', order.quantity), 'buyer', order.buyer,
  'payment', payment, 'retaken', retaken and '1' or '0')
redis.call('HSET', KEYS[2], id, record_of(order))
write_buyers(KEYS[3], has, has)
write_sale(KEYS[1], sale)
return { retaken and 2 or 1, record_of(order), sale.version, sale.now_ms }
