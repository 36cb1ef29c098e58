-- Goes back to the revision before, without a change of the spec: the operator does not run the revision that is named
-- here as long as the spec asks for it. The time makes a second request another one than the first.
local os = require("os")
if obj.metadata.annotations == nil then obj.metadata.annotations = {} end
obj.metadata.annotations["deepseek-operator.io/rollback-from"] =
  obj.status.updatedRevision .. "@" .. os.date("!%Y-%m-%dT%XZ")
return obj
