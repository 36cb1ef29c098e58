-- Holds a rollout where it is: groups that serve go on serving.
if obj.spec.rollout == nil then obj.spec.rollout = {} end
obj.spec.rollout.paused = true
return obj
