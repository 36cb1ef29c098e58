// fault_histories COUNT [SEED [KIND]]: every single fault of a short history, then random histories
// of the whole operator with seeds SEED, SEED + 1, ... (default 1): of each kind, or of KIND alone,
// with and without harm to pods and nodes. Prints every breach with what repeats it; exits 1 then.
// With a SEED no single faults.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "operator/faults/fault_history.h"
#include "operator/faults/gang_history.h"
#include "operator/faults/one_fault.h"
#include "operator/faults/scaling_history.h"
#include "operator/faults/tenant_history.h"

namespace {

using dsm::faults::EventFault;
using dsm::faults::OneFault;
using dsm::faults::WriteFault;
using dsm::plan::Harm;
using dsm::plan::Sleep;

constexpr dsm::faults::ShortHistory kHistory;

struct Kind {
  const char* name;
  dsm::faults::HistoryResult (*play)(unsigned seed, Harm harm);
};
constexpr Kind kKinds[] = {
    {"plain", [](unsigned seed, Harm harm) { return dsm::faults::play_history(seed, harm); }},
    {"sleep", [](unsigned seed,
                 Harm harm) { return dsm::faults::play_history(seed, harm, Sleep::kSometimes); }},
    {"tenants", dsm::faults::play_tenant_history},
    {"gangs", dsm::faults::play_gang_history},
    {"autoscaler", dsm::faults::play_scaling_history}};

int bad = 0;

void tell(const std::string& what, const std::vector<std::string>& breaches) {
  if (breaches.empty()) return;
  ++bad;
  std::printf("%s:\n", what.c_str());
  for (const std::string& breach : breaches) std::printf("  %s\n", breach.c_str());
  std::fflush(stdout);
}

void play_single_faults() {
  constexpr std::pair<WriteFault, const char*> kWrites[] = {
      {WriteFault::kRefused, "refused"},
      {WriteFault::kLostBefore, "lost before it"},
      {WriteFault::kLostAfter, "lost after it"},
      {WriteFault::kCrashBefore, "crash before it"},
      {WriteFault::kCrashAfter, "crash after it"},
      {WriteFault::kSlow, "slow"},
      {WriteFault::kStopped, "stopped before it"},
      {WriteFault::kHandOver, "ended in order after it"}};
  constexpr std::pair<EventFault, const char*> kEvents[] = {{{.delay = dsm::Seconds(5)}, "late"},
                                                            {{.twice = true}, "twice"},
                                                            {{.dropped = true}, "dropped"}};
  OneFault none;
  tell("no fault", play(kHistory, none));
  for (const auto& [fault, name] : kWrites) {
    for (int i = 0; i < none.writes(); ++i) {
      // Who takes over in order comes before the news.
      const bool late = fault == WriteFault::kHandOver;
      OneFault one(i, fault, late ? dsm::Millis(3'000) : dsm::Millis(0));
      tell("write " + std::to_string(i) + " " + name, play(kHistory, one));
    }
  }
  for (const auto& [fault, name] : kEvents) {
    for (int i = 0; i < none.events(); ++i) {
      OneFault one(i, fault);
      tell("event " + std::to_string(i) + " " + name, play(kHistory, one));
    }
  }
  std::printf("%d single faults of writes, %d of events, %d with a breach\n",
              static_cast<int>(std::size(kWrites)) * none.writes(),
              static_cast<int>(std::size(kEvents)) * none.events(), bad);
}

// Of one kind, without harm and with it.
void play_random(const Kind& kind, unsigned first, unsigned count) {
  long seconds = 0;
  long writes = 0;
  long late = 0;
  double nearest_storm = 0;  // share of the writes that a history may have
  const int before = bad;
  for (unsigned seed = first; seed - first < count; ++seed) {
    for (const Harm harm : {Harm::kNone, Harm::kPodsAndNodes}) {
      const auto result = kind.play(seed, harm);
      seconds += result.seconds;
      writes += result.writes;
      late += result.late_writes;
      nearest_storm =
          std::max(nearest_storm, static_cast<double>(result.writes) / result.most_writes);
      tell("seed " + std::to_string(seed) + " " + kind.name +
               (harm == Harm::kNone ? ", without harm" : ", with harm"),
           result.breaches);
    }
  }
  std::printf(
      "%s: %u random histories, %ld s of virtual time, %ld writes (%ld after a lost lease; at most "
      "%.0f %% of those allowed), %d with a breach\n",
      kind.name, 2 * count, seconds, writes, late, 100 * nearest_storm, bad - before);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 3 ? argv[3] : "";
  const bool known = only.empty() || std::ranges::any_of(kKinds, [&](const Kind& kind) {
                       return only == kind.name;
                     });
  if (argc < 2 || !known) {
    std::fputs("usage: fault_histories COUNT [SEED [plain|sleep|tenants|gangs|autoscaler]]\n",
               stderr);
    return 2;
  }
  const auto count = static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10));
  if (argc < 3) play_single_faults();
  const unsigned first = argc > 2 ? static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)) : 1U;
  for (const Kind& kind : kKinds) {
    if (only.empty() || only == kind.name) play_random(kind, first, count);
  }
  return bad == 0 ? 0 : 1;
}
