-- Decides a batch of purchases in order, each on what the previous ones left. Validates first, writes last.
--
-- KEYS  1 stock hash  2 orders  3 due  4 buyers  5 log
-- ARGV  1 epoch  2 to 6 the caller's rules (see read_sale in sale.lua)
--       then for each purchase: order id, line: "QUANTITY BUYER" (no buyer if anonymous)
-- Reply the sale after the step (see view in sale.lua), the version before it, the end of the hold of the new orders;
--       then, for each purchase without a new order, its number, a code and a value:
--       2 ordered before its record (see sale.lua)
--       3 key reused     0     the id has an order with another quantity
--       4 closed         0
--       5 not yet        0
--       6 paused         0
--       7 sold out       0
--       8 buyer limit    tickets that the buyer has
--       9 unpaid limit   unpaid orders that the buyer has
--       10 not enough    what is left
-- Errors: those of sale.lua
-- Keep in step with `reserve` in src/ledger/model.rs.

local sale, err = read_sound_sale(KEYS[1], 2)
if not sale then
  return err
end
if sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end

local FIRST = 7
local count = (#ARGV - FIRST + 1) / 2
local expires_at_ms = sale.now_ms + sale.hold_ms
local expires_text = string.format('%.0f', expires_at_ms)

-- Most purchases of a batch share a few lines, so each different line is parsed once.
local lines, ids, names = {}, {}, {}
for i = 1, count do
  local text = ARGV[FIRST + i * 2 - 1]
  if not lines[text] then
    local digits, buyer = string.match(text, '^(%d+) (.*)$')
    local quantity = whole(digits)
    if not quantity or quantity < 1 then
      return redis.error_reply('DAMAGED the quantity of purchase ' .. i .. ' is not a whole number above 0')
    end
    lines[text] = { quantity = quantity, buyer = buyer, record = 'HELD ' .. digits .. ' ' .. expires_text .. ' - ' .. buyer }
    if buyer ~= '' then
      names[#names + 1] = buyer
    end
  end
  ids[i] = ARGV[FIRST + i * 2 - 2]
end

-- These reads also check that every key written below has the right type.
redis.call('ZCARD', KEYS[3])
local records = redis.call('HMGET', KEYS[2], unpack(ids))
local has, bought
has, err = read_buyers(KEYS[4], names)
if not has then
  return err
end

local refusal = nil
if sale.state == 'closed' or (sale.closes_at_ms >= 0 and sale.now_ms >= sale.closes_at_ms) then
  refusal = 4
elseif sale.opens_at_ms >= 0 and sale.now_ms < sale.opens_at_ms then
  refusal = 5
elseif sale.state == 'paused' then
  refusal = 6
end

local available = math.max(0, sale.total - sale.sold)
local before = sale.version
local reply = view(sale)
reply[#reply + 1] = before
reply[#reply + 1] = expires_at_ms
-- Collected for the writes at the end: fields of the orders, ids of the held, pairs of the log entry.
local fields, held, pairs_held = {}, {}, {}
local made = {}
bought = {}

for i = 1, count do
  local id, text = ids[i], ARGV[FIRST + i * 2 - 1]
  local line = lines[text]
  local quantity, buyer = line.quantity, line.buyer
  local record = records[i] or made[id]
  local code, value = nil, 0
  if record then
    local order = read_record(record)
    if not order then
      return redis.error_reply('DAMAGED the record of order ' .. id .. ' is not one of ours')
    end
    code, value = 2, record
    if order.quantity ~= quantity and order.detail ~= 'given_up' then
      code, value = 3, 0
    end
  elseif refusal then
    code = refusal
  elseif available == 0 then
    code = 7
  elseif buyer ~= '' and sale.per_buyer > 0 and has[buyer].tickets + quantity > sale.per_buyer then
    code, value = 8, has[buyer].tickets
  elseif buyer ~= '' and sale.unpaid_per_buyer > 0 and has[buyer].unpaid >= sale.unpaid_per_buyer then
    code, value = 9, has[buyer].unpaid
  elseif available < quantity then
    code, value = 10, available
  end
  if code then
    reply[#reply + 1] = i
    reply[#reply + 1] = code
    reply[#reply + 1] = value
  else
    available = available - quantity
    sale.sold = sale.sold + quantity
    made[id] = line.record
    local n = #held
    held[n + 1] = id
    fields[n * 2 + 1], fields[n * 2 + 2] = id, line.record
    pairs_held[n * 2 + 1], pairs_held[n * 2 + 2] = id, text
    if buyer ~= '' then
      has[buyer].tickets = has[buyer].tickets + quantity
      has[buyer].unpaid = has[buyer].unpaid + 1
      bought[buyer] = true
    end
  end
end

if #held == 0 then
  return reply
end

-- Nothing can fail from here on.
sale.version = before + 1
append(KEYS[5], sale, 'kind', 'held', 'expires_at_ms', expires_text, unpack(pairs_held))
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('ZADD', KEYS[3], expires_text, string.format('%016.0f ', sale.version) .. table.concat(held, ' '))
write_buyers(KEYS[4], has, bought)
write_sale(KEYS[1], sale)
reply[2], reply[5] = sale.version, sale.sold
return reply
