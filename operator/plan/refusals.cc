#include "operator/plan/refusals.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/api/reasons.h"

namespace dsm::plan {
namespace {

// Two tries, with what a busy operator may be late.
constexpr Seconds kStillSaysSomething{2 * kRetryRefused};

}  // namespace

bool lasting(const WriteFailure& failure) {
  return failure.error == ErrorKind::kDenied || failure.error == ErrorKind::kInvalid;
}

Cause refusal_cause(const WriteFailure& failure) {
  const bool quota = failure.message.find("quota") != std::string::npos;
  return {"Pending", quota ? api::kQuotaExceeded : api::kWriteRefused,
          "the API server refuses " + failure.kind + " " + failure.name + ": " + failure.message,
          true};
}

std::map<std::string, Refusal> refused_groups(const Observed& observed) {
  std::map<std::string, Refusal> groups;
  for (const WriteFailure& failure : observed.failures) {
    if (failure.kind != "Pod" || !lasting(failure)) continue;
    if (failure.time + kStillSaysSomething <= observed.now) continue;
    // It was another write of that pod, then.
    if (std::ranges::find(observed.pods, failure.name, &PodView::name) != observed.pods.end()) {
      continue;
    }
    const WallTime since = failure.since.value_or(failure.time);
    const auto [at, fresh] = groups.try_emplace(
        api::group_of_pod(failure.name), Refusal{since, failure.time, refusal_cause(failure)});
    at->second.since = std::min(at->second.since, since);
    at->second.last = std::max(at->second.last, failure.time);
  }
  return groups;
}

}  // namespace dsm::plan
