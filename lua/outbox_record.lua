-- Records the result of events that an edge has posted.
--
-- KEYS  and ARGV 1: see outbox.lua
-- ARGV  2 the edge  3 the entry up to which everything is delivered, 0 for no progress  4 the most set-aside events
--       5 an event to set aside, "SEQ PART", or ''  6 its "ORDER WHY"
--       then the set-aside events that are delivered now, "SEQ PART"
-- Reply 1 done  2 another edge has the lease  3 too many events are set aside
-- Errors: those of sale.lua

local sale, outbox = read_outbox()
if not sale then
  return outbox
end
local delivered, most, refused = whole(ARGV[3]), whole(ARGV[4]), ARGV[5]
if not delivered or delivered > sale.version then
  return redis.error_reply('DAMAGED nothing can be delivered up to ' .. ARGV[3])
end
-- An expired lease still belongs to its owner until another edge takes it.
if outbox.owner ~= ARGV[2] then
  return 2
end
if refused ~= '' and outbox.aside + outbox.again >= most
  and redis.call('HEXISTS', ASIDE, refused) == 0 and redis.call('HEXISTS', AGAIN, refused) == 0 then
  return 3
end

-- Nothing can fail from here on.
if delivered > outbox.delivered then
  local id = string.format('%.0f', delivered)
  if outbox.has_group then
    redis.call('XGROUP', 'SETID', LOG, GROUP, id .. '-0', 'ENTRIESREAD', id)
  else
    -- The group was destroyed after the lease was taken.
    redis.call('XGROUP', 'CREATE', LOG, GROUP, id .. '-0', 'ENTRIESREAD', id)
  end
end
for i = 7, #ARGV do
  redis.call('HDEL', AGAIN, ARGV[i])
end
if refused ~= '' then
  redis.call('HDEL', AGAIN, refused)
  redis.call('HSET', ASIDE, refused, string.format('%.0f ', sale.now_ms) .. ARGV[6])
end
return 1
