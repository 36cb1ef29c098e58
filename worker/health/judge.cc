#include "worker/health/judge.h"

#include <algorithm>
#include <utility>

#include "worker/health/xid.h"

namespace dsm::health {
namespace {

constexpr std::uint64_t kSlow = kThermal | kHardwareThermal | kPowerBrake;
constexpr std::size_t kMostXids = 64;  // remembered; a driver has some hundred numbers

struct Problem {
  std::string name;
  std::string sentence;  // what it is, and what to do
};

// The worst that the driver has told; the first of equals, since others follow from it.
const Xid* worst_xid(const History& history) {
  const Xid* worst = nullptr;
  for (const std::uint64_t number : history.xids) {
    const Xid* const xid = find_xid(number);
    if (xid != nullptr && (worst == nullptr || (xid->fatal && !worst->fatal))) worst = xid;
  }
  return worst;
}

Problem problem_of(const Xid& xid) {
  return {"Xid" + std::to_string(xid.number), sentence(xid)};
}

// Why nothing that it computes is to be relied on.
std::optional<Problem> fatal_problem(const Reading& reading, const Xid* xid) {
  if (xid != nullptr && xid->fatal) return problem_of(*xid);
  if (reading.lost) return Problem{kLost, "it does not answer any more: restart the node"};
  if (reading.needs_reset) {
    return Problem{kResetRequired, "its driver asks for a reset: drain the node and reset the GPU"};
  }
  return std::nullopt;
}

void add_memory_problems(const Reading& reading, std::vector<Problem>& out) {
  if (reading.rows && reading.rows->failed) {
    out.push_back(
        {kRowRemapFailed, "a memory row could not be remapped and none is left: replace the GPU"});
  }
  if (reading.rows && reading.rows->pending) {
    out.push_back(
        {kRowRemapPending,
         "a memory row waits to be remapped: reset the GPU when the node is next drained"});
  }
  if (reading.ecc_uncorrected.value_or(0) > 0) {
    out.push_back({kUncorrectedMemory,
                   "uncorrected memory errors since its driver was loaded: reset the GPU when the "
                   "node is next drained"});
  }
}

// Why a person should look at it, the most urgent first.
std::vector<Problem> lesser_problems(const Reading& reading, const History& history,
                                     const Xid* xid) {
  std::vector<Problem> out;
  add_memory_problems(reading, out);
  if (history.links_down > 0) {
    out.push_back({kNvlinkDown, std::to_string(history.links_down) + " of " +
                                    std::to_string(history.links) +
                                    " NVLinks are down: reset the GPU, or look at its seat"});
  }
  if (xid != nullptr && !xid->fatal) out.push_back(problem_of(*xid));
  if ((history.slow & kPowerBrake) != 0) {
    out.push_back(
        {kPowerBraked, "its clocks are lowered by the power supply: check the node's power"});
  }
  if ((history.slow & ~std::uint64_t{kPowerBrake}) != 0) {
    out.push_back({kHot, "its clocks are lowered for heat: check the node's cooling"});
  }
  return out;
}

void remember_clocks(History& history, std::uint64_t slow) {
  history.hot = slow != 0 ? history.hot + 1 : 0;
  history.cool = slow != 0 ? 0 : history.cool + 1;
  if (history.hot >= kHotReadings) history.slow |= slow;
  if (history.cool >= kCalmReadings) history.slow = 0;
}

void remember_links(History& history, unsigned up) {
  history.links = std::max(history.links, up);
  history.linked = up < history.links ? 0 : history.linked + 1;
  history.links_down = std::max(history.links_down, history.links - up);
  if (history.linked >= kCalmReadings) history.links_down = 0;
}

}  // namespace

void remember(History& history, const Reading& reading) {
  remember_clocks(history, reading.throttle.value_or(0) & kSlow);
  if (reading.links) remember_links(history, *reading.links);
}

bool remember_xid(History& history, std::uint64_t xid) {
  const bool known = std::ranges::find(history.xids, xid) != history.xids.end();
  if (known || history.xids.size() >= kMostXids) return false;
  history.xids.push_back(xid);
  return true;
}

DeviceHealth judge(const Reading& reading, const History& history) {
  DeviceHealth health{.level = Level::kHealthy,
                      .device = reading.device,
                      .message = "",
                      .problems = {},
                      .utilisation_percent = reading.utilisation_percent.value_or(0),
                      .temperature_celsius = reading.temperature_celsius.value_or(0),
                      .power_watts = reading.power_milliwatts.value_or(0) / 1000,
                      .memory_used = reading.memory_used.value_or(0),
                      .memory_total = reading.memory_total.value_or(0),
                      .memory_allocated = reading.own.allocated,
                      .memory_fragmented = reading.own.fragmented,
                      .signs = static_cast<const Signs&>(reading),
                      .xids = history.xids};
  const Xid* const xid = worst_xid(history);
  std::vector<Problem> problems = lesser_problems(reading, history, xid);
  if (!problems.empty()) health.level = Level::kDegraded;
  if (auto fatal = fatal_problem(reading, xid)) {
    health.level = Level::kFatal;
    problems.insert(problems.begin(), std::move(*fatal));
  }
  if (problems.empty()) return health;
  health.message = reading.device + ": " + problems.front().sentence;
  for (Problem& problem : problems) health.problems.push_back(std::move(problem.name));
  return health;
}

bool is_lost(const DeviceHealth& health) {
  if (health.level != Level::kFatal) return false;
  return std::ranges::none_of(health.xids, [&](std::uint64_t number) {
    const Xid* const xid = find_xid(number);
    return xid != nullptr && restart_mends(*xid) &&
           problem_of(*xid).name == health.problems.front();
  });
}

}  // namespace dsm::health
