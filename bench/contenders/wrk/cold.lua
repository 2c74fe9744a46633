-- Browsers that have no page yet.
dofile("/pages.lua")
function request() return page(false) end
