#include "operator/api/schedule.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace dsm::api {
namespace {

constexpr std::array<std::string_view, 7> kDays{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
constexpr unsigned kEveryDay = 0x7f;

std::unexpected<Error> wrong_days(std::string_view text) {
  return fail(ErrorKind::kInvalid,
              "is \"" + std::string(text) + "\"; use days such as Mon-Fri or Sat,Sun");
}

// 0 for Monday; 7 when it is no day.
std::size_t day_number(std::string_view name) {
  return static_cast<std::size_t>(std::ranges::find(kDays, name) - kDays.begin());
}

}  // namespace

Result<unsigned> parse_days(std::string_view text) {
  if (text.empty()) return kEveryDay;
  unsigned out = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const auto comma = rest.find(',');
    const auto part = rest.substr(0, comma);
    if (comma + 1 == rest.size()) return wrong_days(text);
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
    const auto dash = part.find('-');
    const auto first = day_number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : day_number(part.substr(dash + 1));
    if (first == kDays.size() || last == kDays.size()) return wrong_days(text);
    for (auto day = first;; day = (day + 1) % kDays.size()) {
      out |= 1U << day;
      if (day == last) break;
    }
  }
  return out;
}

Result<std::chrono::minutes> parse_time_of_day(std::string_view text) {
  int hour = -1;
  int minute = -1;
  const auto number = [&](std::size_t at, int& out) {
    const char* end = text.data() + at + 2;
    return std::from_chars(text.data() + at, end, out).ptr == end && out >= 0;
  };
  const bool read =
      text.size() == 5 && text[2] == ':' && number(0, hour) && number(3, minute) && minute < 60;
  if (!read || hour * 60 + minute > 24 * 60) {
    return fail(ErrorKind::kInvalid,
                "is \"" + std::string(text) + "\"; use a time from 00:00 to 24:00, such as 08:30");
  }
  return std::chrono::hours(hour) + std::chrono::minutes(minute);
}

}  // namespace dsm::api
