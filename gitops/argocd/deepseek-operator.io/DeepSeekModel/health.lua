-- The health of a DeepSeekModel for Argo CD (Lua 5.1 without a standard library).
--   Healthy      all groups of the spec's revision answer
--   Progressing  the operator has not looked yet, or groups are on their way or wait for room: another workload may go, a
--                cluster autoscaler may add a node. Groups that gave back what they held and try again wait no more.
--   Degraded     something is wrong or rolled back: a person has to act, or a group that served is coming back
--   Suspended    a rollout stands still because spec.rollout.paused says so, or the groups sleep because spec.sleep does
local function condition(status, kind)
  if status.conditions == nil then return nil end
  for _, one in ipairs(status.conditions) do
    if one.type == kind then return one end
  end
  return nil
end

local function is_true(one)
  return one ~= nil and one.status == "True"
end

local waiting = {
  Unschedulable = true, WaitingForAdmission = true, WaitingForGPU = true, WaitingForCPU = true,
  WaitingForMemory = true, WaitingForVolume = true, QuotaExceeded = true,
}

local function answer(status, message)
  return {status = status, message = message}
end

local status = obj.status
if status == nil or status.conditions == nil then
  return answer("Progressing", "Waiting for the operator's first look")
end
if status.observedGeneration ~= obj.metadata.generation then
  return answer("Progressing", "Waiting for the operator to see the last change")
end

local ready = condition(status, "Ready")
local stalled = condition(status, "Stalled")
local degraded = condition(status, "Degraded")
if is_true(stalled) then return answer("Degraded", stalled.message) end
if is_true(degraded) and waiting[degraded.reason] and status.backoff == nil then
  return answer("Progressing", degraded.message)
end
if is_true(degraded) then return answer("Degraded", degraded.message) end
if is_true(ready) then return answer("Healthy", ready.message) end

local rollout = obj.spec ~= nil and obj.spec.rollout or nil
if rollout ~= nil and rollout.paused == true and status.currentRevision ~= status.updatedRevision then
  return answer("Suspended", "The rollout is paused")
end
if ready ~= nil and ready.reason == "Asleep" then return answer("Suspended", ready.message) end
if ready == nil or ready.message == nil then return answer("Progressing", "") end
return answer("Progressing", ready.message)
