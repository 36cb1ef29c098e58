#include "worker/group/wire_health.h"

#include <optional>

namespace dsm::group {
namespace {

enum class Presence : std::uint8_t { kAbsent, kThere };

// What need not be there: whether it is, and what it is.
template <typename T>
void write(Writer& w, const std::optional<T>& value) {
  w.number(static_cast<std::uint8_t>(value.has_value()));
  if (value) w.number(*value);
}
template <typename T>
void read(Reader& r, std::optional<T>& value) {
  if (r.choice(Presence::kThere) == Presence::kThere) value = r.number<T>();
}

void write(Writer& w, const std::optional<health::RemappedRows>& rows) {
  w.number(static_cast<std::uint8_t>(rows.has_value()));
  if (!rows) return;
  w.number(rows->corrected);
  w.number(rows->uncorrected);
  w.number(static_cast<std::uint8_t>(rows->pending));
  w.number(static_cast<std::uint8_t>(rows->failed));
}
void read(Reader& r, std::optional<health::RemappedRows>& rows) {
  if (r.choice(Presence::kThere) != Presence::kThere) return;
  rows.emplace();
  rows->corrected = r.number<std::uint32_t>();
  rows->uncorrected = r.number<std::uint32_t>();
  rows->pending = r.number<std::uint8_t>() != 0;
  rows->failed = r.number<std::uint8_t>() != 0;
}

void write(Writer& w, const health::Signs& s) {
  write(w, s.sm_clock_mhz);
  write(w, s.memory_clock_mhz);
  write(w, s.throttle);
  write(w, s.ecc_corrected);
  write(w, s.ecc_uncorrected);
  write(w, s.rows);
  write(w, s.links);
  write(w, s.link_errors);
}
void read(Reader& r, health::Signs& s) {
  read(r, s.sm_clock_mhz);
  read(r, s.memory_clock_mhz);
  read(r, s.throttle);
  read(r, s.ecc_corrected);
  read(r, s.ecc_uncorrected);
  read(r, s.rows);
  read(r, s.links);
  read(r, s.link_errors);
}

}  // namespace

void write(Writer& w, const health::DeviceHealth& d) {
  w.number(static_cast<std::uint8_t>(d.level));
  w.text(d.device);
  w.text(d.message);
  w.number(static_cast<std::uint32_t>(d.problems.size()));
  for (const std::string& problem : d.problems) w.text(problem);
  w.number(d.utilisation_percent);
  w.number(d.temperature_celsius);
  w.number(d.power_watts);
  w.number(d.memory_used);
  w.number(d.memory_total);
  w.number(d.memory_allocated);
  w.number(d.memory_fragmented);
  write(w, d.signs);
  w.numbers(d.xids);
}
void read(Reader& r, health::DeviceHealth& d) {
  constexpr std::size_t kSmallestText = 4;
  d.level = r.choice(health::Level::kFatal);
  d.device = r.text();
  d.message = r.text();
  d.problems.resize(r.count(kSmallestText));
  for (std::string& problem : d.problems) problem = r.text();
  d.utilisation_percent = r.number<std::uint32_t>();
  d.temperature_celsius = r.number<std::uint32_t>();
  d.power_watts = r.number<std::uint32_t>();
  d.memory_used = r.number<std::uint64_t>();
  d.memory_total = r.number<std::uint64_t>();
  d.memory_allocated = r.number<std::uint64_t>();
  d.memory_fragmented = r.number<std::uint64_t>();
  read(r, d.signs);
  d.xids = r.numbers<std::uint64_t>();
}

}  // namespace dsm::group
