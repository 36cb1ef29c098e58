-- Which actions Argo CD offers for a DeepSeekModel as it is now.
local rollout = obj.spec.rollout
local paused = rollout ~= nil and rollout.paused == true
local status = obj.status or {}
local back = status.rollback ~= nil and status.rollback.active == true
-- What a rollback goes back from is what the spec asks for, so the operator must have seen that.
local seen = status.observedGeneration == obj.metadata.generation and (status.updatedRevision or "") ~= ""
return {
  restart = {},
  pause = {disabled = paused},
  resume = {disabled = not paused},
  rollback = {disabled = back or not seen},
  ["roll-forward"] = {disabled = not back},
}
