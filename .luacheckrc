-- The globals that each folder's scripts may use. Lengths of lines are scripts/widths' to check.
std = "lua51"
max_line_length = false

-- Redis runs them. scripts/lint checks each one joined to its library, as Spikegate sends it; a script does not call all of
-- the library, so functions that nothing uses (211) are no fault.
files["lua"] = { read_globals = { "redis", "KEYS", "ARGV" }, ignore = { "211" } }

-- wrk calls `done`; nginx gives its interface as `ngx`.
files["bench/conf/report.lua"] = { globals = { "done" } }
files["bench/conf/ticket.lua"] = { globals = { "ngx" } }
