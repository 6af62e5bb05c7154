-- The head of the scripts of the outbox, behind that of all scripts (sale.lua).
--
-- How far the log was delivered is what its consumer group `delivery` says: the group's last delivered id is SEQ-0 of
-- the last entry that was delivered. Nothing is read through the group and nothing is ever pending in it: one edge at a
-- time delivers, in order, so there is never more to claim than the place where it stopped. Whoever reads the stream
-- with a group of their own is not concerned, and XINFO GROUPS shows everybody how far it is. As a part of the stream
-- it belongs to this log alone.
--
-- Beside the log are, each with the sale's epoch in its name so that a sale made anew begins with none
--   delivery:EPOCH          owner, until_ms: the edge that has the delivery, and the end of its lease
--   delivery:EPOCH:aside    events set aside, "SEQ PART" -> "AT_MS ORDER WHY"; ORDER is - if the event is of no order
--   delivery:EPOCH:again    those of them that are to be tried again
--
-- Every script of the outbox has
-- KEYS  1 stock hash  2 log  3 delivery  4 aside  5 again
-- ARGV  1 epoch

local GROUP = 'delivery'
local LOG, DELIVERY, ASIDE, AGAIN = KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- Reads the sale and its outbox. Returns the sale and the outbox, or nil and an error reply.
local function read_outbox()
  local sale, err = read_opened_sale(KEYS[1])
  if not sale then
    return nil, err
  end
  if sale.epoch ~= ARGV[1] then
    return nil, redis.error_reply('CHANGED ' .. KEYS[1])
  end
  -- Every sale in care has a first entry.
  if redis.call('EXISTS', LOG) == 0 then
    return nil, redis.error_reply('DAMAGED the log ' .. LOG .. ' is gone')
  end
  local outbox = { delivered = 0 }
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', LOG)) do
    local named = {}
    for i = 1, #group, 2 do
      named[group[i]] = group[i + 1]
    end
    if named['name'] == GROUP then
      outbox.has_group = true
      outbox.delivered = whole(string.match(named['last-delivered-id'], '^(%d+)-'))
      if not outbox.delivered then
        return nil, redis.error_reply('DAMAGED the group ' .. GROUP .. ' of ' .. LOG .. ' stands at no entry of ours')
      end
    end
  end
  local lease = redis.call('HMGET', DELIVERY, 'owner', 'until_ms')
  outbox.owner = lease[1]
  outbox.left_ms = (whole(lease[2]) or 0) - sale.now_ms
  -- These reads also make sure that every key that is written below has the type that it must have.
  outbox.aside = redis.call('HLEN', ASIDE)
  outbox.again = redis.call('HLEN', AGAIN)
  return sale, outbox
end

-- Whether an edge has the delivery now.
local function is_held(outbox)
  return outbox.owner and outbox.left_ms > 0
end

-- What the replies about an outbox begin with. Keep in step with `progress` in src/ledger/redis/outbox.rs.
local function progress(sale, outbox, oldest)
  return {
    sale.version, outbox.delivered, oldest and tonumber(oldest[2][2]) or -1, sale.now_ms, outbox.aside + outbox.again,
    is_held(outbox) and outbox.owner or '', math.max(0, outbox.left_ms),
  }
end

-- The first entry that was not delivered; every entry begins with its at_ms.
local function oldest_of(sale, outbox)
  if outbox.delivered >= sale.version then
    return nil
  end
  return redis.call('XRANGE', LOG, string.format('(%.0f-0', outbox.delivered), '+', 'COUNT', 1)[1]
end
