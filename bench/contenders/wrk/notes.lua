-- New notes: a title and 100 characters of text.
dofile("/report.lua")
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = string.format('{"title":"A note","text":"%s"}', string.rep("0123456789", 10))
