-- Common head of the outbox scripts, after the head of all scripts (sale.lua).
--
-- The consumer group `delivery` of the log stores how far the log was delivered: its last delivered id is SEQ-0 of the
-- last delivered entry. Nothing is read through the group and nothing is pending in it: one edge at a time delivers, in
-- order. Other readers of the stream use their own groups, and XINFO GROUPS shows the lag. The group belongs to this
-- log only.
--
-- Keys beside the log contain the sale's epoch, so that a new sale of the same name starts without them
--   delivery:EPOCH          owner, until_ms: the edge that has the lease, and the end of the lease
--   delivery:EPOCH:aside    events set aside, "SEQ PART" -> "AT_MS ORDER WHY"; ORDER is - if the event is of no order
--   delivery:EPOCH:again    those of them that are to be retried
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
  -- Every opened sale has a first entry.
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
  -- These reads also check that every key written below has the right type.
  outbox.aside = redis.call('HLEN', ASIDE)
  outbox.again = redis.call('HLEN', AGAIN)
  return sale, outbox
end

-- Whether an edge has the lease now.
local function is_held(outbox)
  return outbox.owner and outbox.left_ms > 0
end

-- The beginning of replies about an outbox. Keep in step with `progress` in src/stores/redis/outbox.rs.
local function progress(sale, outbox, oldest)
  return {
    sale.version, outbox.delivered, oldest and tonumber(oldest[2][2]) or -1, sale.now_ms, outbox.aside + outbox.again,
    is_held(outbox) and outbox.owner or '', math.max(0, outbox.left_ms),
  }
end

-- The first entry that is not delivered; every entry begins with its at_ms.
local function oldest_of(sale, outbox)
  if outbox.delivered >= sale.version then
    return nil
  end
  return redis.call('XRANGE', LOG, string.format('(%.0f-0', outbox.delivered), '+', 'COUNT', 1)[1]
end
