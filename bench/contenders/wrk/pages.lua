-- The front page and its files, in turn, as a browser asks for them.
dofile("/report.lua")
local paths = {"/", "/style.css", "/board.js", "/icon.svg"}
local next_path = 0
tags = {}

-- The next request; with its ETag where `known` and one is known.
function page(known)
  next_path = next_path % #paths + 1
  local path = paths[next_path]
  return wrk.format("GET", path, {
    ["Accept-Encoding"] = "gzip",
    ["If-None-Match"] = known and tags[path] or nil,
  })
end
