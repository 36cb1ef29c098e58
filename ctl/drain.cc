#include "ctl/drain.h"

#include <algorithm>
#include <map>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/observed.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

struct Candidate {
  std::string short_name;  // <revision>-<number>
  std::string number;
  GroupPods group;
};

// By name.
std::vector<Candidate> candidates(const json& model, const std::vector<json>& pods) {
  std::map<std::string, Candidate> found;
  for (const json& pod : pods) {
    const plan::PodView view = plan::pod_view(pod);
    if (view.owner_uid != uid_of(model) || view.group < 0) continue;
    const std::string number = std::to_string(view.group);
    const std::string name = api::group_name(name_of(model), view.revision, view.group);
    Candidate& candidate = found[name];
    candidate.short_name = view.revision + "-" + number;
    candidate.number = number;
    candidate.group.name = name;
    candidate.group.pods.push_back(pod);
  }
  std::vector<Candidate> out;
  for (auto& [name, candidate] : found) {
    std::ranges::sort(candidate.group.pods, {}, [](const json& pod) { return name_of(pod); });
    out.push_back(std::move(candidate));
  }
  return out;
}

std::string names_of(const std::vector<Candidate>& all) {
  std::string text;
  for (const Candidate& one : all) text += (text.empty() ? "" : ", ") + one.group.name;
  return text;
}

}  // namespace

Result<GroupPods> choose_group(const json& model, const std::vector<json>& pods,
                               const std::string& group) {
  std::vector<Candidate> all = candidates(model, pods);
  std::vector<Candidate> fitting;
  std::ranges::copy_if(all, std::back_inserter(fitting), [&](const Candidate& one) {
    return group == one.number || group == one.short_name || group == one.group.name;
  });
  if (fitting.size() == 1) return std::move(fitting.front().group);
  if (all.empty()) return fail(ErrorKind::kNotFound, name_of(model) + " has no groups");
  if (fitting.empty()) {
    return fail(ErrorKind::kNotFound, "GROUP: " + name_of(model) + " has no group " + group +
                                          "; there are: " + names_of(all));
  }
  return fail(ErrorKind::kInvalid, "GROUP: several groups of " + name_of(model) +
                                       " have the number " + group +
                                       "; use one of: " + names_of(fitting));
}

json drain_patch(const json& pod, bool asked, WallTime now) {
  return {{"metadata",
           {{"uid", uid_of(pod)},
            {"annotations",
             {{std::string(api::kDrainAnnotation), asked ? json(to_rfc3339(now)) : json()}}}}}};
}

bool is_asked_to_go(const GroupPods& group) {
  return std::ranges::any_of(group.pods, [](const json& pod) { return plan::pod_view(pod).drain; });
}

std::string drain_state(const api::ModelStatus& status, const std::string& group) {
  const api::Condition* degraded = api::find_condition(status, api::kDegraded);
  if (degraded != nullptr && degraded->status == api::Truth::kTrue &&
      degraded->reason == api::kDrainBlocked) {
    return degraded->reason + ": " + degraded->message;
  }
  const auto said = std::ranges::find(status.groups, group, &api::GroupStatus::name);
  if (said == status.groups.end()) return "not in the model's status";
  if (said->reason.empty()) return said->phase + ", the operator does not move it yet";
  return said->phase + ", " + said->reason + ": " + said->message;
}

}  // namespace dsm::ctl
