#include "operator/plan/room.h"

#include <algorithm>
#include <cmath>

#include "operator/api/quantity.h"
#include "operator/api/reasons.h"
#include "operator/plan/budget.h"

namespace dsm::plan {

Room room_of(const Look& look) {
  Room room;
  const auto& grant = look.observed.tenant;
  const Revision* made = look.made();
  if (!grant || made == nullptr) return room;
  for (const auto& [resource, demand] : group_demand(made->spec)) {
    const auto left = grant->room.find(resource);
    if (left == grant->room.end() || demand <= 0) continue;
    const double fit = std::floor(std::max(0.0, left->second) / demand);
    room.groups = static_cast<int>(std::min<double>(room.groups, fit));
    if (fit >= 1 || room.refusal) continue;
    const WallTime now = look.observed.now;
    room.refusal = Refusal{grant->no_room_since.value_or(now), now,
                           Cause{"Pending", api::kQuotaExceeded,
                                 "tenant " + grant->tenant + "'s budget has " +
                                     api::quantity_text(resource, std::max(0.0, left->second)) +
                                     " " + resource + " left, and a group of revision " +
                                     made->name + " takes " + api::quantity_text(resource, demand),
                                 true}};
  }
  return room;
}

}  // namespace dsm::plan
