-- Decides a batch of purchases in their order, each on what the ones before it left. Validates first, writes last.
--
-- KEYS  1 stock hash  2 orders  3 due  4 buyers  5 log
-- ARGV  1 epoch  2 hold_ms  3 per_buyer  4 opens_at_ms or -1  5 closes_at_ms or -1
--       then for each purchase: order id, quantity, buyer ('' if nobody knows)
-- Reply the sale after the step (see view in sale.lua), the version before it, then for each purchase a code and a value:
--       1 ordered        expires_at_ms
--       2 ordered before its record: "STATE QUANTITY EXPIRES_AT_MS BUYER"
--       3 key reused     0     the id has an order with another quantity
--       4 closed         0
--       5 not yet        0
--       6 paused         0
--       7 sold out       0
--       8 buyer limit    what the buyer has
--       9 not enough     what is left
-- Errors: those of sale.lua
-- Keep in step with `reserve` in src/ledger/model.rs.

local sale, err = read_opened_sale(KEYS[1], 2)
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end

local ORDER_STATES = { HELD = true, PAID = true, RELEASED = true }
local FIRST = 6
local count = (#ARGV - FIRST + 1) / 3
local ids, names = {}, {}
for i = 1, count do
  local at = FIRST + (i - 1) * 3
  local quantity = whole(ARGV[at + 1])
  if not quantity or quantity < 1 then
    return redis.error_reply('DAMAGED the quantity of purchase ' .. i .. ' is not a whole number above 0')
  end
  ids[i] = ARGV[at]
  if ARGV[at + 2] ~= '' then
    names[#names + 1] = ARGV[at + 2]
  end
end

-- These reads also make sure that every key that is written below has the type that it must have.
redis.call('ZCARD', KEYS[3])
local records = redis.call('HMGET', KEYS[2], unpack(ids))
local has = {}
if #names > 0 then
  local counts = redis.call('HMGET', KEYS[4], unpack(names))
  for i, name in ipairs(names) do
    has[name] = tonumber(counts[i] or '0')
  end
end

local refusal = nil
if sale.state == 'closed' or (sale.closes_at_ms >= 0 and sale.now_ms >= sale.closes_at_ms) then
  refusal = 4
elseif sale.opens_at_ms >= 0 and sale.now_ms < sale.opens_at_ms then
  refusal = 5
elseif sale.state == 'paused' then
  refusal = 6
end

local expires_at_ms = sale.now_ms + sale.hold_ms
local expires_text = string.format('%.0f', expires_at_ms)
local available = math.max(0, sale.total - sale.sold)
local before = sale.version
local reply = view(sale)
reply[#reply + 1] = before
local made, bought, deadlines, entries = {}, {}, {}, {}
local seen = {}

for i = 1, count do
  local at = FIRST + (i - 1) * 3
  local id, quantity, buyer = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local record = seen[id] or records[i]
  local code, value = 1, 0
  if record then
    local state, bought_before = string.match(record, '^(%u+) (%d+) %d+ ')
    if not ORDER_STATES[state] then
      return redis.error_reply('DAMAGED the record of order ' .. id .. ' is not one of ours')
    end
    code, value = 2, record
    if tonumber(bought_before) ~= quantity then
      code, value = 3, 0
    end
  elseif refusal then
    code = refusal
  elseif available == 0 then
    code = 7
  elseif buyer ~= '' and sale.per_buyer > 0 and has[buyer] + quantity > sale.per_buyer then
    code, value = 8, has[buyer]
  elseif available < quantity then
    code, value = 9, available
  else
    value = expires_at_ms
    available = available - quantity
    sale.sold = sale.sold + quantity
    sale.version = sale.version + 1
    record = 'HELD ' .. ARGV[at + 1] .. ' ' .. expires_text .. ' ' .. buyer
    seen[id] = record
    made[#made + 1] = id
    made[#made + 1] = record
    deadlines[#deadlines + 1] = expires_text
    deadlines[#deadlines + 1] = id
    entries[#entries + 1] = at
    if buyer ~= '' then
      has[buyer] = has[buyer] + quantity
      bought[buyer] = true
    end
  end
  reply[#reply + 1] = code
  reply[#reply + 1] = value
end

if #made == 0 then
  return reply
end

-- From here on nothing can be refused any more.
for i, at in ipairs(entries) do
  append(KEYS[5], before + i, sale.now_ms, 'kind', 'held', 'order', ARGV[at], 'quantity', ARGV[at + 1],
    'buyer', ARGV[at + 2], 'expires_at_ms', expires_text)
end
redis.call('HSET', KEYS[2], unpack(made))
redis.call('ZADD', KEYS[3], unpack(deadlines))
local counts = {}
for name in pairs(bought) do
  counts[#counts + 1] = name
  counts[#counts + 1] = string.format('%.0f', has[name])
end
if #counts > 0 then
  redis.call('HSET', KEYS[4], unpack(counts))
end
local version, sold = string.format('%.0f', sale.version), string.format('%.0f', sale.sold)
redis.call('HSET', KEYS[1], 'ticket_sold_nums', sold, 'version', version, 'clock_ms',
  string.format('%.0f', sale.now_ms))
reply[2], reply[5] = sale.version, sale.sold
return reply
