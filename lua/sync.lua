-- Reads a sale's counters and its log entries since the caller's last read, at one moment. Writes nothing.
--
-- KEYS  1 stock hash  2 log  3 due
-- ARGV  1 epoch, or '' for any sale, fenced or not  2 to 6 the caller's rules (see read_sale in sale.lua)
--       7 the newest entry that the caller has read
--       8 lines after which reading stops (an entry has one, and one for each order that it lists); 0 for none
-- Reply the sale (see view in sale.lua), the end of the first hold that no sweep has checked or -1,
--       then the entries as in XRANGE
-- Errors: those of sale.lua

local sale, err = read_sale(KEYS[1], 2)
if not sale then
  return err
end
if ARGV[1] ~= '' and sale.epoch ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. KEYS[1])
end
if ARGV[1] ~= '' and sale.fence then
  return redis.error_reply('FENCED ' .. sale.fence)
end

-- Few at a time, since an entry may list hundreds of orders.
local STRIDE = 8
-- Entries of these kinds list orders, after the fields at_ms, kind and one more.
local LISTS = { held = true, released = true, restored = true }
local OWN_FIELDS = 6
local entries, lines, most = {}, 0, tonumber(ARGV[8])
local from = ARGV[7]
local complete = tonumber(from) >= sale.version
while not complete and lines < most do
  local some = redis.call('XRANGE', KEYS[2], '(' .. from .. '-0', '+', 'COUNT', STRIDE)
  complete = #some < STRIDE
  for _, entry in ipairs(some) do
    if lines < most then
      entries[#entries + 1] = entry
      lines = lines + 1 + (LISTS[entry[2][4]] and (#entry[2] - OWN_FIELDS) / 2 or 0)
      from = string.match(entry[1], '^%d+')
    end
  end
end

local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local reply = view(sale)
reply[#reply + 1] = first[2] and tonumber(first[2]) or -1
reply[#reply + 1] = entries
return reply
