-- Lets a paused rollout go on.
if obj.spec.rollout ~= nil then obj.spec.rollout.paused = nil end
return obj
