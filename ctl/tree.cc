#include "ctl/tree.h"

#include <algorithm>
#include <map>
#include <utility>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/plan/sleep.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

std::string how_it_ended(const plan::PodView& pod) {
  if (pod.exit_reason.empty() && pod.exit_code == 0) return "";
  std::string text = "last exit code " + std::to_string(pod.exit_code);
  if (!pod.exit_reason.empty()) text += " (" + pod.exit_reason + ")";
  if (!pod.exit_why.empty()) text += ": " + std::string(pod.exit_why);
  if (!pod.exit_message.empty()) text += ": " + pod.exit_message;
  return text;
}

// The first thing that stands in the pod's way, as kubectl would say it, and its explanation.
std::pair<std::string, std::string> state_of(const plan::PodView& pod) {
  if (pod.deletion) return {"Terminating", ""};
  if (pod.phase == "Failed" || pod.phase == "Succeeded") {
    if (pod.status_reason.empty()) return {pod.phase, how_it_ended(pod)};
    return {pod.status_reason, pod.status_message};
  }
  if (pod.unschedulable_since) return {"Unschedulable", pod.unschedulable_message};
  if (!pod.waiting_reason.empty()) {
    return {pod.waiting_reason,
            pod.waiting_message.empty() ? how_it_ended(pod) : pod.waiting_message};
  }
  if (pod.ready) return {"Ready", ""};
  if (pod.running) return {"Running", ""};
  return {pod.phase.empty() ? "Pending" : pod.phase, how_it_ended(pod)};
}

PodBranch branch_of(const plan::PodView& pod) {
  PodBranch branch;
  branch.name = pod.name;
  branch.role = pod.index == 0 ? api::kRoleLeader : api::kRoleWorker;
  std::tie(branch.state, branch.message) = state_of(pod);
  branch.node = pod.node;
  branch.restarts = pod.restarts;
  return branch;
}

json branch_json(const GroupBranch& branch) {
  const api::GroupStatus& g = branch.status;
  json pods = json::array();
  for (const PodBranch& pod : branch.pods) {
    pods.push_back({{"name", pod.name},
                    {"role", pod.role},
                    {"state", pod.state},
                    {"message", pod.message},
                    {"node", pod.node},
                    {"restarts", pod.restarts}});
  }
  json devices = json::array();
  for (const api::DeviceStatus& device : g.devices) devices.push_back(api::to_json(device));
  return {{"name", g.name},
          {"revision", g.revision},
          {"phase", g.phase},
          {"reason", g.reason},
          {"message", g.message},
          {"nodes", g.nodes},
          {"loadedBytes", g.loaded_bytes},
          {"totalBytes", g.total_bytes},
          {"restarts", g.restarts},
          {"devices", std::move(devices)},
          {"pods", std::move(pods)}};
}

}  // namespace

ModelTree tree_of(const json& model, const std::vector<plan::PodView>& pods) {
  ModelTree tree;
  tree.name = name_of(model);
  tree.ns = namespace_of(model);
  tree.created = from_rfc3339(text_at(model, "/metadata/creationTimestamp"));
  tree.going = !part(model, "/metadata/deletionTimestamp").is_null();
  tree.paused = part(model, "/spec/rollout/paused") == json(true);
  tree.sleeps = plan::wants_sleep(model);
  const json& replicas = part(model, "/spec/replicas");
  tree.desired = replicas.is_number_integer() ? replicas.get<int>() : 1;
  const json& generation = part(model, "/metadata/generation");
  if (generation.is_number_integer()) tree.generation = generation.get<long>();
  tree.status = api::parse_status(part(model, "/status"));

  std::map<std::string, GroupBranch> groups;
  for (const api::GroupStatus& group : tree.status.groups) groups[group.name].status = group;
  const std::string uid = uid_of(model);
  for (const plan::PodView& pod : pods) {
    if (pod.owner_uid != uid || pod.group < 0) continue;
    GroupBranch& group = groups[api::group_name(tree.name, pod.revision, pod.group)];
    if (group.status.name.empty()) {
      group.status.name = api::group_name(tree.name, pod.revision, pod.group);
      group.status.revision = pod.revision;
    }
    group.pods.push_back(branch_of(pod));
  }
  for (auto& [name, group] : groups) {
    std::ranges::sort(group.pods, {}, &PodBranch::name);
    tree.groups.push_back(std::move(group));
  }
  return tree;
}

json to_json(const ModelTree& tree) {
  json status = api::to_json(tree.status);
  status.erase("groups");  // they are below, with their pods
  json groups = json::array();
  for (const GroupBranch& group : tree.groups) groups.push_back(branch_json(group));
  return {{"name", tree.name},
          {"namespace", tree.ns},
          {"created", to_rfc3339(tree.created)},
          {"deleting", tree.going},
          {"paused", tree.paused},
          {"sleep", tree.sleeps},
          {"replicas", tree.desired},
          {"generation", tree.generation},
          {"status", std::move(status)},
          {"groups", std::move(groups)}};
}

}  // namespace dsm::ctl
