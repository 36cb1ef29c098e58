// The revisions of a model that are kept in ControllerRevisions, and how to go back to one. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "ctl/changes.h"
#include "ctl/text.h"
#include "operator/plan/children.h"

namespace dsm::ctl {

struct KeptRevision {
  plan::Revision revision;
  WallTime made;
};

// Those of the model, the newest first; what this release cannot read is left out.
std::vector<KeptRevision> kept_revisions(const nlohmann::json& model,
                                         const std::vector<nlohmann::json>& objects);

// A table: revision, age, what it is now (wanted, serving), image and what would change.
std::string history_text(const nlohmann::json& model, const std::vector<KeptRevision>& kept,
                         WallTime now, const Style& style);

struct Rollback {
  std::string from;  // revision that is wanted now; empty: the spec is wrong
  std::string to;
  std::vector<Change> changes;  // of the part that shapes pods, without what is at its default
  nlohmann::json patch;         // JSON merge patch of the model
};

// `to` names a revision; empty: the last one that was rolled out whole if the wanted one is not, or
// else the newest other one. kInvalid: there is nothing to go back to, or the spec would be wrong
// for another reason afterwards. kConflict: it is the wanted one already.
Result<Rollback> roll_back(const nlohmann::json& model, const std::vector<KeptRevision>& kept,
                           const std::string& to);

// The merge patch that asks the operator to go back from the revision that the spec asks for, by an
// annotation: the spec stays. kConflict: it has done so already; kInvalid: it has not looked at the
// spec yet.
Result<nlohmann::json> keep_spec_patch(const nlohmann::json& model, WallTime now);
// The merge patch that takes the annotation away; null: there is none.
nlohmann::json undo_patch(const nlohmann::json& model);

// The merge patch that makes every group anew: an annotation of the pods, which is part of the
// revision. kubectl's `rollout restart` sets the same one.
nlohmann::json restart_patch(const nlohmann::json& model, WallTime now);

// The merge patch that stops or continues a rollout.
nlohmann::json pause_patch(const nlohmann::json& model, bool paused);
bool is_paused(const nlohmann::json& model);

// The merge patch that lets groups sleep or wakes them.
nlohmann::json sleep_patch(const nlohmann::json& model, bool sleep);

}  // namespace dsm::ctl
