// An Observed, understood once: who the model is, what it asks for, what was said before, which
// revisions exist. Private to operator/plan; points into the Observed.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "operator/api/spec.h"
#include "operator/api/status.h"
#include "operator/plan/children.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct Look {
  explicit Look(const Observed& from) : observed(from) {}

  const Observed& observed;
  Owner owner;
  long generation = 0;
  bool going = false;     // the model is being deleted
  bool nameable = false;  // names of children can grow from its name
  api::ModelStatus before;
  std::optional<api::Spec> spec;  // absent: it is wrong, and `mistake` says how
  std::string mistake;
  std::string_view mistake_reason;  // kInvalidSpec, kNotAllowed or kDoesNotFit
  // Wanted: the spec's, or the one that is gone back to; with a wrong spec the last one taken.
  std::string revision;
  std::optional<api::Rollback> rollback;  // that somebody asks for
  int desired = 0;                        // groups
  int granted = 0;                        // of these: what the tenant's budget lets run
  // The revision is not made before then, because another one was a moment ago.
  std::optional<WallTime> settles;
  // With schedules the bounds in `spec` are those of now.
  std::string schedule;                       // that holds; empty: none
  std::optional<WallTime> schedule_until;     // when the bounds change; absent: they do not
  std::map<std::string, Revision> revisions;  // those whose ControllerRevision is there and ours

  // The revision that is wanted, when its ControllerRevision is there.
  const Revision* wanted() const;
  // The one that new groups are made from: the wanted one, but while the rollout is held the one
  // that was rolled out last.
  const Revision* made() const;
  bool paused() const { return spec && spec->rollout.paused; }
  // What shapes pods in `spec` is of an earlier revision than the model's.
  bool rolled_back() const { return spec && rollback && rollback->active; }
  // Groups of all revisions stay, and are kept whole: the user says so, the spec cannot be taken,
  // or is still being edited.
  bool held() const { return !spec || paused() || settles; }
  // The newest refusal of a write of this object; nullptr: none.
  const WriteFailure* failure(std::string_view kind, std::string_view name) const;
  // A child as it is in the cluster, whoever made it; nullptr: not there.
  const nlohmann::json* child(std::string_view kind, std::string_view name) const;
};

Look look_at(const Observed& observed);

}  // namespace dsm::plan
