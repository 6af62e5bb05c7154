-- A purchase as nginx with Lua does it. It only counts: no order, no log, no hold. Once sold out it stays so, which is
-- wrong when stock comes back, and the fastest that it can be.

local SOLD_OUT = '{"code":-1,"msg":"已售罄"}'
local SOLD = '{"code":1,"msg":"抢票成功"}'

local SCRIPT = [[
local stock = redis.call('HMGET', KEYS[1], 'ticket_total_nums', 'ticket_sold_nums')
if tonumber(stock[2]) < tonumber(stock[1]) then
  redis.call('HINCRBY', KEYS[1], 'ticket_sold_nums', 1)
  return 1
end
return 0
]]

-- A command as Redis reads it.
local function command(...)
  local parts = { '*' .. select('#', ...) .. '\r\n' }
  for _, word in ipairs({ ... }) do
    parts[#parts + 1] = '$' .. #word .. '\r\n' .. word .. '\r\n'
  end
  return table.concat(parts)
end

local LOAD = command('SCRIPT', 'LOAD', SCRIPT)
local sales = ngx.shared.sales
-- The command that buys; known once Redis has told the script's name.
local purchase

local function fail(reason)
  ngx.log(ngx.ERR, reason)
  return ngx.exit(503)
end

-- Sends a command and gives the first line of the reply.
local function ask(socket, text)
  local sent, fault = socket:send(text)
  if not sent then
    return nil, fault
  end
  return socket:receive('*l')
end

local function connect()
  local socket = ngx.socket.tcp()
  socket:settimeout(5000)
  local connected, fault = socket:connect('127.0.0.1', 21079, { pool = 'redis', pool_size = 100 })
  if not connected then
    return nil, fault
  end
  return socket
end

local function learn(socket)
  local reply, fault = ask(socket, LOAD)
  if not reply or reply:sub(1, 1) ~= '$' then
    return nil, fault or reply
  end
  local name
  name, fault = socket:receive('*l')
  if not name then
    return nil, fault
  end
  purchase = command('EVALSHA', name, '1', 'ticket_hash_key')
  return true
end

local function answer(body)
  ngx.header.content_length = #body
  ngx.print(body)
end

local function buy()
  if sales:get('sold_out') then
    return answer(SOLD_OUT)
  end
  local socket, fault = connect()
  if not socket then
    return fail(fault)
  end
  if not purchase then
    local learned
    learned, fault = learn(socket)
    if not learned then
      return fail(fault)
    end
  end
  local reply
  reply, fault = ask(socket, purchase)
  if not reply then
    return fail(fault)
  end
  if reply == ':1' then
    socket:setkeepalive()
    return answer(SOLD)
  end
  if reply == ':0' then
    socket:setkeepalive()
    sales:set('sold_out', true)
    return answer(SOLD_OUT)
  end
  return fail(reply)
end

return { buy = buy }
