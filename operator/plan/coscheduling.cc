#include "operator/plan/coscheduling.h"

#include <algorithm>
#include <array>

#include "operator/plan/children.h"
#include "operator/plan/groups.h"
#include "operator/plan/json_part.h"
#include "operator/plan/look.h"
#include "operator/plan/plan.h"
#include "operator/plan/rollout.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kApiVersion = "scheduling.x-k8s.io/v1alpha1";

// What the plugin says of pods that it rejects because of another one of their group, or because
// it had not seen the others, or their PodGroup, when they came.
constexpr std::array<std::string_view, 5> kBecauseOfAnother = {
    "optimistic rejection in PostFilter", "rejection in Unreserve", "failed recently",
    "cannot find enough sibling pods", "PodGroup not found"};

bool is_used(const std::vector<Group>& groups, const std::vector<std::string>& made,
             const std::string& name) {
  const auto group = std::ranges::find(groups, name, &Group::name);
  return (group != groups.end() && group->bound_together) ||
         std::ranges::find(made, name) != made.end();
}

}  // namespace

bool binds_together(const Observed& observed, const api::Spec& spec) {
  return observed.pod_groups && !spec.placement.scheduler_name.empty() && spec.pods_per_group() > 1;
}

json pod_group_json(const Owner& owner, const std::string& group, int pods) {
  return {{"apiVersion", kApiVersion},
          {"kind", kPodGroup},
          {"metadata", child_metadata(owner, group)},
          // How long some pods keep what the scheduler holds for them while others have nothing:
          // as long as without the plugin.
          {"spec", {{"minMember", pods}, {"scheduleTimeoutSeconds", kPlacementPatience.count()}}}};
}

std::vector<json> wanted_pod_groups(const Look& look, const std::vector<Group>& groups) {
  std::vector<json> wanted;
  if (!look.observed.pod_groups) return wanted;
  for (const Group& group : groups) {
    if (!group.known || !group.bound_together) continue;
    wanted.push_back(pod_group_json(look.owner, group.name, group.want));
  }
  return wanted;
}

void remove_unused_pod_groups(const Look& look, const std::vector<Group>& groups,
                              const std::vector<std::string>& made, Plan& plan) {
  for (const json& child : look.observed.children) {
    if (text(part(child, "/kind")) != kPodGroup) continue;
    if (controller_uid(child) != look.owner.uid) continue;
    const std::string name = text(part(child, "/metadata/name"));
    if (is_used(groups, made, name)) continue;
    if (!part(child, "/metadata/deletionTimestamp").is_null()) continue;
    plan.remove.push_back({kApiVersion, std::string(kPodGroup), name,
                           text(part(child, "/metadata/uid")), "its group is gone"});
  }
}

bool waits_for_another(std::string_view words) {
  return std::ranges::any_of(kBecauseOfAnother,
                             [&](std::string_view each) { return words.contains(each); });
}

}  // namespace dsm::plan
