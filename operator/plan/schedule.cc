#include "operator/plan/schedule.h"

#include <absl/time/civil_time.h>
#include <absl/time/time.h>

#include <algorithm>

namespace dsm::plan {
namespace {

struct Window {
  absl::TimeZone zone;
  unsigned days = 0;  // on which it begins; bit 0 is Monday
  int from = 0;       // minutes since midnight
  int to = 0;         // may be beyond 24 * 60: in the night after
};

constexpr int kDayMinutes = 24 * 60;
// A week, and a day for windows that began the day before or after.
constexpr int kDaysAhead = 8;

bool begins_on(const Window& window, absl::CivilDay day) {
  const auto monday_first = static_cast<unsigned>(absl::GetWeekday(day));
  return (window.days >> monday_first & 1U) != 0;
}

bool holds(const Window& window, absl::Time now) {
  const auto clock = absl::ToCivilMinute(now, window.zone);
  const absl::CivilDay today(clock);
  const auto minute = static_cast<int>(clock - absl::CivilMinute(today));
  if (begins_on(window, today) && minute >= window.from && minute < window.to) return true;
  return begins_on(window, today - 1) && minute + kDayMinutes < window.to;
}

// The instants at which the wall clock comes to a civil time: two where it is set back over it. One
// that is skipped gives the instant of the change.
void add_instants(const Window& window, absl::CivilMinute at, std::vector<absl::Time>& out) {
  const auto info = window.zone.At(absl::CivilSecond(at));
  if (info.kind == absl::TimeZone::TimeInfo::UNIQUE) {
    out.push_back(info.pre);
    return;
  }
  out.push_back(info.trans);
  if (info.kind == absl::TimeZone::TimeInfo::REPEATED) {
    out.push_back(info.pre);
    out.push_back(info.post);
  }
}

// Every instant of the next days at which the window may begin or end: also the changes of the
// clock themselves, which jump into a window or out of it.
void add_edges(const Window& window, absl::Time now, std::vector<absl::Time>& out) {
  const absl::CivilDay today(absl::ToCivilDay(now, window.zone));
  for (int ahead = -1; ahead <= kDaysAhead; ++ahead) {
    const auto day = today + ahead;
    if (!begins_on(window, day)) continue;
    add_instants(window, absl::CivilMinute(day) + window.from, out);
    add_instants(window, absl::CivilMinute(day) + window.to, out);
  }
  absl::TimeZone::CivilTransition change;
  if (window.zone.NextTransition(now, &change)) {
    out.push_back(absl::FromCivil(change.to, window.zone));
    const auto info = window.zone.At(change.to);
    out.push_back(info.trans);
  }
}

std::unexpected<Error> wrong(std::size_t index, const char* field, const std::string& what) {
  return fail(ErrorKind::kInvalid,
              "schedules[" + std::to_string(index) + "]." + field + ": " + what);
}

Result<Window> read(const api::Schedule& schedule, std::size_t index) {
  Window window;
  const bool local = schedule.time_zone == "localtime";
  if (local || !absl::LoadTimeZone(schedule.time_zone, &window.zone)) {
    return wrong(
        index, "timeZone",
        "is \"" + schedule.time_zone + "\"; use a name of the IANA list, such as Europe/Berlin");
  }
  const auto days = api::parse_days(schedule.days);
  if (!days) return wrong(index, "days", days.error().message);
  const auto from = api::parse_time_of_day(schedule.from);
  if (!from) return wrong(index, "from", from.error().message);
  const auto to = api::parse_time_of_day(schedule.to);
  if (!to) return wrong(index, "to", to.error().message);
  window.days = *days;
  window.from = static_cast<int>(from->count());
  window.to = static_cast<int>(to->count());
  if (window.to <= window.from) window.to += kDayMinutes;
  return window;
}

// The schedule that holds, or schedules.size().
std::size_t in_force(const std::vector<Window>& windows, absl::Time now) {
  const auto found = std::ranges::find_if(windows, [&](const Window& w) { return holds(w, now); });
  return static_cast<std::size_t>(found - windows.begin());
}

ReplicaBounds bounds_of(const ReplicaBounds& base, const api::Schedule& schedule) {
  ReplicaBounds out{schedule.min_replicas.value_or(base.min),
                    schedule.max_replicas.value_or(base.max)};
  if (out.min <= out.max) return out;
  if (schedule.min_replicas) {
    out.max = out.min;
  } else {
    out.min = out.max;
  }
  return out;
}

}  // namespace

Result<ScheduledBounds> bounds_at(const ReplicaBounds& base,
                                  const std::vector<api::Schedule>& schedules, WallTime now) {
  std::vector<Window> windows;
  for (std::size_t i = 0; i < schedules.size(); ++i) {
    auto window = read(schedules[i], i);
    if (!window) return std::unexpected(window.error());
    windows.push_back(*window);
  }
  const auto instant = absl::FromChrono(now);
  const auto current = in_force(windows, instant);
  ScheduledBounds out{base, "", std::nullopt};
  if (current < schedules.size()) {
    out.bounds = bounds_of(base, schedules[current]);
    out.schedule = schedules[current].name;
  }
  std::vector<absl::Time> edges;
  for (const auto& window : windows) add_edges(window, instant, edges);
  std::ranges::sort(edges);
  for (const auto edge : edges) {
    if (edge <= instant || in_force(windows, edge) == current) continue;
    out.until = absl::ToChronoTime(edge);
    break;
  }
  return out;
}

}  // namespace dsm::plan
