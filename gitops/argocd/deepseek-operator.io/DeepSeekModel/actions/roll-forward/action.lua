-- Takes a rollback back: what the spec asks for is rolled out again.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["deepseek-operator.io/rollback-from"] = nil
end
return obj
