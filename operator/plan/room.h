// For how many new groups of a model its tenant's budget has room: also one more for a while, for a
// rollout or a drain, is begun only where there is some. Private to operator/plan.
#pragma once

#include <optional>

#include "operator/plan/look.h"
#include "operator/plan/refusals.h"
#include "operator/plan/rollout.h"

namespace dsm::plan {

struct Room {
  int groups = kNoLimit;
  // Where there is none: as if the API server had refused it by a quota.
  std::optional<Refusal> refusal;
};

// Of the revision of which groups are made now.
Room room_of(const Look& look);

}  // namespace dsm::plan
