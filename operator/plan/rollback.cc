#include "operator/plan/rollback.h"

#include <algorithm>
#include <tuple>

#include "operator/api/names.h"
#include "operator/plan/json_part.h"

namespace dsm::plan {
namespace {

api::Rollback without_effect(api::Rollback rollback, std::string message) {
  rollback.to.clear();
  rollback.active = false;
  rollback.message = std::move(message);
  return rollback;
}

api::Rollback refused(api::Rollback rollback, const std::string& why) {
  return without_effect(std::move(rollback), "nothing is rolled back: " + why);
}

api::Rollback begun(api::Rollback rollback, const RollbackInput& in) {
  if (in.wanted.empty()) {
    return refused(std::move(rollback),
                   "the spec cannot be taken, so nothing of it runs; what served before goes on");
  }
  if (in.wanted != rollback.from) {
    const std::string why = "the spec asks for revision " + in.wanted + ", not for ";
    return refused(rollback, why + rollback.from);
  }
  std::vector<const Revision*> allowed;
  for (const auto& [name, revision] : in.revisions) {
    if (std::ranges::find(in.not_allowed, name) == in.not_allowed.end()) {
      allowed.push_back(&revision);
    }
  }
  const Revision* to = revision_before(rollback.from, in.before.current_revision, allowed);
  if (to == nullptr) {
    return refused(std::move(rollback), in.not_allowed.empty()
                                            ? "there is no other revision to go back to"
                                            : "the model's tenant allows no other revision");
  }
  rollback.to = to->name;
  rollback.active = true;
  rollback.message =
      "revision " + rollback.from + " is not run, " + rollback.to + " is run in its place";
  return rollback;
}

}  // namespace

std::string rollback_request(const nlohmann::json& model) {
  const nlohmann::json notes = part(model, "/metadata/annotations");
  const auto found = notes.find(api::kRollbackAnnotation);
  return found == notes.end() ? "" : text(*found);
}

const Revision* revision_before(std::string_view from, std::string_view serving,
                                const std::vector<const Revision*>& revisions) {
  const Revision* best = nullptr;
  for (const Revision* revision : revisions) {
    if (revision->name == from) continue;
    if (revision->name == serving) return revision;
    const bool better = best == nullptr || std::tuple(revision->served, revision->number) >
                                               std::tuple(best->served, best->number);
    if (better) best = revision;
  }
  return best;
}

std::optional<api::Rollback> rollback_of(const RollbackInput& in) {
  if (in.request.empty()) return std::nullopt;
  const auto& before = in.before.rollback;
  const bool known = before && before->request == in.request;
  if (!known) {
    return begun({in.request, in.request.substr(0, in.request.find('@')), "", false, ""}, in);
  }
  if (!before->active || in.wanted.empty()) return before;
  if (in.wanted != before->from) {
    return without_effect(*before, "the rollback from revision " + before->from +
                                       " is over: the spec asks for " + in.wanted + " now");
  }
  if (in.revisions.contains(before->to)) return before;
  return begun(*before, in);
}

}  // namespace dsm::plan
