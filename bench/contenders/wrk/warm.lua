-- Browsers that have all pages, and ask whether they have changed.
dofile("/pages.lua")
-- The ETags, from a first request for each page.
function init(arguments)
  for _, path in ipairs({"/", "/style.css", "/board.js", "/icon.svg"}) do
    local curl = "curl --silent --compressed --output /dev/null --dump-header - http://127.0.0.1:80"
    local headers = io.popen(curl .. path):read("*a")
    tags[path] = headers:match("[Ee][Tt][Aa][Gg]: ([^\r\n]+)")
    assert(tags[path], "no ETag: " .. path)
  end
end
function request() return page(true) end
