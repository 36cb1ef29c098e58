// Going back to an earlier revision without a change of the spec. Pure.
//
// A GitOps controller would undo an edit of the spec, and an action of Argo CD sees the model
// alone. So an annotation names the revision that shall not run. As long as the spec asks for just
// that one, the revision before it is run in its place: with the number of groups, the scaling and
// the rollout that the spec says. An edit to another revision ends it for good, also when the spec
// comes back to the first one later, although the annotation may still be there: what became of a
// request is remembered in the status.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "operator/api/status.h"
#include "operator/plan/children.h"

namespace dsm::plan {

// The annotation's value; empty: there is none.
std::string rollback_request(const nlohmann::json& model);

// The one to go back to from `from`: the one that serves, where that is another; else the newest
// one that has served; else the newest. nullptr: there is no other.
const Revision* revision_before(std::string_view from, std::string_view serving,
                                const std::vector<const Revision*>& revisions);

struct RollbackInput {
  std::string request;                               // empty: none
  std::string wanted;                                // by the spec; empty: it cannot be taken
  const api::ModelStatus& before;                    // the status as it was written last
  const std::map<std::string, Revision>& revisions;  // those that are known
  const std::vector<std::string>& not_allowed;       // of these: by the model's tenant
};

// Absent: nobody asks for one.
std::optional<api::Rollback> rollback_of(const RollbackInput& input);

}  // namespace dsm::plan
