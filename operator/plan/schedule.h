// Bounds of the number of groups that change with the time of the week, on the clock of the place
// that a schedule names.
//
// A window holds while the wall clock there shows a time in [from, to), on a day that is named or
// in the night after it. So a time that a change of the clock skips never holds, and one that it
// repeats holds twice. The first schedule that holds decides. Pure, but for the time zones of the
// system (/usr/share/zoneinfo), which are read once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "operator/api/schedule.h"

namespace dsm::plan {

struct ReplicaBounds {
  int min = 1;
  int max = 1;
  bool operator==(const ReplicaBounds&) const = default;
};

struct ScheduledBounds {
  ReplicaBounds bounds;
  std::string schedule;           // that holds now; empty: none does
  std::optional<WallTime> until;  // when to look again; absent: it is so for ever
};

// `base` holds where no schedule does, and stands for what a schedule leaves out; where the two
// together would be min > max, the number that the schedule names wins over the one that it leaves
// out. kInvalid: a schedule cannot be read; the message begins with its place ("schedules[1].days:
// ...").
Result<ScheduledBounds> bounds_at(const ReplicaBounds& base,
                                  const std::vector<api::Schedule>& schedules, WallTime now);

}  // namespace dsm::plan
