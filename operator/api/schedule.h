// A time of the week with bounds of its own, in the civil time of a place:
// spec.scaling.schedules[].
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace dsm::api {

struct Schedule {
  std::string name;
  std::string time_zone = "UTC";  // IANA name, such as Europe/Berlin
  std::string days;               // "Mon-Fri", "Sat,Sun", "Fri-Mon"; empty: every day
  std::string from;               // "08:00"; the days are those on which the window begins
  std::string to;                 // "18:00", or up to "24:00"; at or before `from`: on the next day
  std::optional<int> min_replicas;
  std::optional<int> max_replicas;  // absent: as without the schedule
};

// Bit 0 is Monday. Errors say what can be written.
Result<unsigned> parse_days(std::string_view text);

// Minutes since midnight, 0 to 1440 ("24:00").
Result<std::chrono::minutes> parse_time_of_day(std::string_view text);

}  // namespace dsm::api
