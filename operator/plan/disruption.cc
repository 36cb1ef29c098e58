#include "operator/plan/disruption.h"

#include <algorithm>

#include "operator/api/names.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kApiVersion = "policy/v1";

bool has_budget(const Look& look, const std::vector<Group>& groups, const std::string& name) {
  return look.observed.config.watches_nodes &&
         std::ranges::find(groups, name, &Group::name) != groups.end();
}

}  // namespace

json disruption_budget_json(const Owner& owner, const Group& group) {
  const json labels = {{std::string(api::kModelLabel), owner.name},
                       {std::string(api::kRevisionLabel), group.revision},
                       {std::string(api::kGroupLabel), std::to_string(group.number)}};
  return {{"apiVersion", kApiVersion},
          {"kind", kDisruptionBudget},
          {"metadata", child_metadata(owner, group.name)},
          {"spec",
           {{"minAvailable", group.want},
            {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
            {"selector", {{"matchLabels", labels}}}}}};
}

std::vector<json> wanted_budgets(const Look& look, const std::vector<Group>& groups) {
  std::vector<json> wanted;
  if (!look.observed.config.watches_nodes) return wanted;
  for (const Group& group : groups) {
    if (!group.known || !(group.stands || group.served)) continue;
    wanted.push_back(disruption_budget_json(look.owner, group));
  }
  return wanted;
}

void remove_unused_budgets(const Look& look, const std::vector<Group>& groups, Plan& plan) {
  for (const json& child : look.observed.children) {
    if (child.value("kind", "") != kDisruptionBudget) continue;
    if (controller_uid(child) != look.owner.uid) continue;
    const json metadata = child.value("metadata", json::object());
    const std::string name = metadata.value("name", "");
    if (has_budget(look, groups, name) || metadata.contains("deletionTimestamp")) continue;
    plan.remove.push_back({kApiVersion, std::string(kDisruptionBudget), name,
                           metadata.value("uid", ""), "its group is gone"});
  }
}

}  // namespace dsm::plan
