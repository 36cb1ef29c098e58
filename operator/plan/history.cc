#include "operator/plan/history.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "operator/api/names.h"
#include "operator/plan/actions.h"
#include "operator/plan/children.h"
#include "operator/plan/json_part.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

const json* object_of(const Look& look, const Revision& revision) {
  return look.child("ControllerRevision", api::revision_object(look.owner.name, revision.name));
}

// Of a model that has had one revision only nothing has to be told apart.
void mark_served(const Look& look, Plan& plan) {
  const auto current = look.revisions.find(look.before.current_revision);
  if (current == look.revisions.end() || look.revisions.size() < 2) return;
  const Revision& revision = current->second;
  long last = 0;
  for (const auto& [name, other] : look.revisions) last = std::max(last, other.number);
  // While another one is rolled out it is that one's turn.
  const bool whole = look.before.updated_revision == revision.name;
  const long number = whole && revision.number < last ? last + 1 : revision.number;
  if (revision.served && number == revision.number) return;
  const json* object = object_of(look, revision);
  const std::string name = api::revision_object(look.owner.name, revision.name);
  const WriteFailure* failure = look.failure("ControllerRevision", name);
  if (failure != nullptr && failure->time + kRetryRefused > look.observed.now) return;
  plan.children.push_back({ChildWrite::Verb::kMerge,
                           "apps/v1",
                           "ControllerRevision",
                           name,
                           {{"metadata",
                             {{"uid", part(*object, "/metadata/uid")},
                              {"annotations", {{std::string(api::kServedAnnotation), "true"}}}}},
                            {"revision", number}}});
}

void remove_old(const Look& look, const std::vector<Group>& groups, Plan& plan) {
  std::set<std::string> used = {look.revision, look.before.current_revision,
                                look.before.updated_revision};
  for (const Group& group : groups) used.insert(group.revision);
  std::vector<const Revision*> unused;
  for (const auto& [name, revision] : look.revisions) {
    if (!used.contains(name)) unused.push_back(&revision);
  }
  const api::Rollout rollout = look.spec ? look.spec->rollout : api::Rollout{};
  const auto kept = static_cast<std::size_t>(rollout.history_limit);
  if (unused.size() <= kept) return;
  std::ranges::sort(unused, std::greater<>(),
                    [](const Revision* r) { return std::tuple(r->served, r->number); });
  for (std::size_t i = kept; i < unused.size(); ++i) {
    const json* object = object_of(look, *unused[i]);
    plan.remove.push_back(
        {"apps/v1", "ControllerRevision", api::revision_object(look.owner.name, unused[i]->name),
         text(part(*object, "/metadata/uid")), "nothing has used it for a long time"});
  }
}

}  // namespace

void plan_history(const Look& look, const std::vector<Group>& groups, Plan& plan) {
  mark_served(look, plan);
  remove_old(look, groups, plan);
}

}  // namespace dsm::plan
