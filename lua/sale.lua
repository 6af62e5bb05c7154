-- Common head of every script: reads a sale's stock hash and checks it. It is prepended to each of the other files, so
-- that the format of the hash is defined once.
--
-- The stock hash is the article's. Fields and their defaults:
--   ticket_total_nums   all tickets; the only required field
--   ticket_sold_nums    held and paid tickets; default 0
--   paid                paid tickets; default 0
--   state               open | paused | closed; default open
--   version             number of the newest log entry; default 0
--   clock_ms            the latest time seen, so that time never goes back; default 0
--   epoch, secret       set when an edge opens the sale (open.lua); without them nothing is sold
--   fence               why nothing may be sold or settled until the sale is reconciled; absent otherwise
--   reign, reign_since_ms, generation
--                       see authorize.lua
--   hold_ms, per_buyer, unpaid_per_buyer, opens_at_ms, closes_at_ms
--                       rules for all edges; without them each edge's own configuration applies
--
-- The other keys are
--   orders   order id -> record: "STATE QUANTITY EXPIRES_AT_MS DETAIL BUYER". DETAIL is - of HELD, the payment of PAID,
--            and expired, cancelled or given_up of RELEASED. An id that was given up has quantity 0.
--   due      scored by the end of their hold, the orders of one step: "VERSION ID ID ID ..."
--   buyers   buyer -> "TICKETS UNPAID", tickets held or paid and unpaid orders
--   log      one entry per change, VERSION-0; orders that one step created or released share one entry, each order as a
--            field: ID -> "QUANTITY BUYER"
--   changes  change id -> delta
--
-- Error replies of every script, by their first word:
--   MISSING   there is no such hash
--   DAMAGED   a field or an argument is invalid; nothing was written
--   FENCED    changes were lost; nothing was written
--   CHANGED   the sale is not the one that the caller opened, or is not opened yet; nothing was written

local STATES = { open = true, paused = true, closed = true }
local ORDER_STATES = { HELD = true, PAID = true, RELEASED = true }
local FIELDS = {
  'ticket_total_nums', 'ticket_sold_nums', 'paid', 'state', 'version', 'clock_ms', 'epoch',
  'hold_ms', 'per_buyer', 'unpaid_per_buyer', 'opens_at_ms', 'closes_at_ms', 'fence',
}
local TEXTS = { state = true, epoch = true, fence = true }

-- A whole number that a double holds exactly, or nil.
local function whole(text)
  if text and #text <= 15 and string.find(text, '^%d+$') then
    return tonumber(text)
  end
  return nil
end

-- Reads the hash `key`. `first` is the index in ARGV of the caller's hold_ms, per_buyer, unpaid_per_buyer, opens_at_ms
-- and closes_at_ms (-1 for none); scripts that need no rule omit it. Returns the sale, or nil and an error reply.
local function read_sale(key, first)
  local stored = redis.call('HMGET', key, unpack(FIELDS))
  if not stored[1] then
    if redis.call('EXISTS', key) == 0 then
      return nil, redis.error_reply('MISSING ' .. key)
    end
    return nil, redis.error_reply('DAMAGED ' .. key .. ' has no ticket_total_nums')
  end

  local values = {}
  for i, field in ipairs(FIELDS) do
    if stored[i] and not TEXTS[field] then
      values[field] = whole(stored[i])
      if not values[field] then
        return nil, redis.error_reply('DAMAGED ' .. key .. ' ' .. field .. ' is not a whole number')
      end
    end
  end
  local state = stored[4] or 'open'
  if not STATES[state] then
    return nil, redis.error_reply('DAMAGED ' .. key .. ' state is none of open, paused, closed')
  end

  local time = redis.call('TIME')
  local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local function rule(field, index)
    return values[field] or (first and tonumber(ARGV[first + index]))
  end
  return {
    epoch = stored[7] or '',
    fence = stored[13],
    version = values.version or 0,
    now_ms = math.max(now_ms, values.clock_ms or 0),
    total = values.ticket_total_nums,
    sold = values.ticket_sold_nums or 0,
    paid = values.paid or 0,
    state = state,
    hold_ms = rule('hold_ms', 0),
    per_buyer = rule('per_buyer', 1),
    unpaid_per_buyer = rule('unpaid_per_buyer', 2),
    opens_at_ms = rule('opens_at_ms', 3),
    closes_at_ms = rule('closes_at_ms', 4),
  }
end

-- The same for a script that changes a sale, which must be opened.
local function read_opened_sale(key, first)
  local sale, err = read_sale(key, first)
  if sale and sale.epoch == '' then
    return nil, redis.error_reply('CHANGED ' .. key)
  end
  return sale, err
end

-- The same for a script that creates, settles or delivers orders: only while the sale is not fenced.
local function read_sound_sale(key, first)
  local sale, err = read_opened_sale(key, first)
  if sale and sale.fence then
    return nil, redis.error_reply('FENCED ' .. sale.fence)
  end
  return sale, err
end

-- The beginning of every reply about a sale. Keep in step with `view` in src/stores/redis/reply.rs.
local function view(sale)
  return {
    sale.epoch, sale.version, sale.now_ms, sale.total, sale.sold, sale.paid, sale.state,
    sale.hold_ms, sale.per_buyer, sale.unpaid_per_buyer, sale.opens_at_ms, sale.closes_at_ms,
  }
end

-- Parses an order's record; nil if it is invalid.
local function read_record(record)
  local state, quantity, expires_at_ms, detail, buyer = string.match(record, '^(%u+) (%d+) (%d+) ([^ ]+) (.*)$')
  quantity = whole(quantity)
  if not ORDER_STATES[state] or not quantity then
    return nil
  end
  return { state = state, quantity = quantity, expires_at_ms = expires_at_ms, detail = detail, buyer = buyer }
end

local function record_of(order)
  return string.format('%s %.0f %s %s %s', order.state, order.quantity, order.expires_at_ms, order.detail, order.buyer)
end

-- Reads one order. Returns it, or false if there is none, or nil and an error reply.
local function read_order(orders, id)
  local record = redis.call('HGET', orders, id)
  if not record then
    return false
  end
  local order = read_record(record)
  if not order then
    return nil, redis.error_reply('DAMAGED the record of order ' .. id .. ' is not one of ours')
  end
  return order
end

-- Reads the records of these buyers, by name. Returns nil and an error reply if a record is invalid.
local function read_buyers(key, names)
  local has = {}
  if #names == 0 then
    return has
  end
  local stored = redis.call('HMGET', key, unpack(names))
  for i, name in ipairs(names) do
    local tickets, unpaid = string.match(stored[i] or '0 0', '^(%d+) (%d+)$')
    tickets, unpaid = whole(tickets), whole(unpaid)
    if not tickets or not unpaid then
      return nil, redis.error_reply('DAMAGED the record of buyer ' .. name .. ' is not one of ours')
    end
    has[name] = { tickets = tickets, unpaid = unpaid }
  end
  return has
end

-- Writes the records of the buyers that are keys of `changed`; buyers without tickets are removed.
local function write_buyers(key, has, changed)
  local fields, nothing = {}, {}
  for name in pairs(changed) do
    local tickets, unpaid = math.max(0, has[name].tickets), math.max(0, has[name].unpaid)
    if tickets == 0 and unpaid == 0 then
      nothing[#nothing + 1] = name
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = string.format('%.0f %.0f', tickets, unpaid)
    end
  end
  if #fields > 0 then
    redis.call('HSET', key, unpack(fields))
  end
  if #nothing > 0 then
    redis.call('HDEL', key, unpack(nothing))
  end
end

-- Writes the log entry of the sale's version. This is the first write of a script: the stream refuses a number that
-- exists, and then nothing has been written.
local function append(log, sale, ...)
  redis.call('XADD', log, string.format('%.0f-0', sale.version), 'at_ms', string.format('%.0f', sale.now_ms), ...)
end

-- Writes the fields of the hash that a step may change.
local function write_sale(key, sale)
  redis.call('HSET', key, 'ticket_sold_nums', string.format('%.0f', sale.sold), 'paid', string.format('%.0f', sale.paid),
    'version', string.format('%.0f', sale.version), 'clock_ms', string.format('%.0f', sale.now_ms))
end
