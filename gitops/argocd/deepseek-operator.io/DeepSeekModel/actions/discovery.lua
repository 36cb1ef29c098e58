-- Which actions Argo CD offers for a DeepSeekModel as it is now.
local rollout = obj.spec.rollout
local paused = rollout ~= nil and rollout.paused == true
return {
  restart = {},
  pause = {disabled = paused},
  resume = {disabled = not paused},
}
