#include "operator/plan/plan.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/kueue.h"
#include "operator/plan/news.h"
#include "operator/plan/report.h"
#include "operator/plan/room.h"

namespace dsm::plan {
namespace {

// Pure changes of numbers are written at most this often, and how far the groups are: those of a
// model start together, and each one's steps would be a write.
constexpr Seconds kNumbersEvery{5};
constexpr Seconds kProgressEvery{1};
constexpr Seconds kSurgeRetry{300};
constexpr Seconds kRefusedSurgeFirstWait{60};  // a quota that was raised should soon count
constexpr Seconds kReplaceFirstWait{120};
constexpr Seconds kReplaceLongestWait{1800};
constexpr Seconds kRenewFirstWait{10};
constexpr Seconds kRenewLongestWait{300};
constexpr Seconds kPlaceFirstWait{60};
constexpr Seconds kPlaceLongestWait{900};

bool waits_for(const std::optional<api::Backoff>& backoff, std::string_view reason, WallTime now) {
  return backoff && backoff->reason == reason && now < from_rfc3339(backoff->until);
}

// What was said before counts only for the same revision.
std::optional<api::Backoff> backoff_before(const Look& look) {
  return look.before.updated_revision == look.revision ? look.before.backoff : std::nullopt;
}

// The surge group that was tried again has found its nodes.
bool surge_fits(const std::vector<Group>& groups, const RolloutDecision& decision) {
  if (decision.old.empty() && decision.leaving.empty()) return true;
  return std::ranges::any_of(decision.keep, [&](std::size_t i) {
    const Group& group = groups[i];
    return !group.ready && std::ranges::all_of(group.pods, [](const PodView* pod) {
      return pod != nullptr && !pod->node.empty();
    });
  });
}

bool all_ready(const Look& look, const std::vector<Group>& groups,
               const RolloutDecision& decision) {
  return decision.old.empty() && static_cast<int>(decision.keep.size()) == look.granted &&
         std::ranges::all_of(decision.keep, [&](std::size_t i) { return groups[i].stands; });
}

bool all_stable(const std::vector<Group>& groups, const RolloutDecision& decision, WallTime now) {
  return std::ranges::all_of(decision.keep, [&](std::size_t i) {
    const auto& stable_at = groups[i].restarts.stable_at;
    return stable_at && *stable_at <= now;
  });
}

// What was tried without success is over, so that the next failure counts from one again.
bool is_over(const api::Backoff& backoff, const Look& look, const std::vector<Group>& groups,
             const RolloutDecision& decision) {
  if (backoff.reason == api::kSurgeUnschedulable || backoff.reason == api::kDrainBlocked) {
    return surge_fits(groups, decision);
  }
  if (!all_ready(look, groups, decision)) return false;
  const bool kept_ending = backoff.reason == api::kCrashLoop || backoff.reason == api::kPodLost;
  return !kept_ending || all_stable(groups, decision, look.observed.now);
}

std::string why(const Group& group) {
  return "group " + group.name + (group.cause ? ": " + group.cause->message : "");
}

std::optional<api::Backoff> next_backoff(const Look& look, const std::vector<Group>& groups,
                                         const RolloutDecision& decision) {
  auto backoff = backoff_before(look);
  // Doubled with each try up to `longest`.
  const auto again = [&](std::string_view reason, Seconds first, Seconds longest,
                         std::string message) {
    const int count = backoff && backoff->reason == reason ? backoff->count : 0;
    const Seconds wait = std::min(longest, first * (1 << std::min(count, 8)));
    return api::Backoff{std::string(reason), count + 1, to_rfc3339(look.observed.now + wait),
                        std::move(message)};
  };
  if (decision.surge_failed) {
    const bool draining = any_leaving(groups, decision);
    return again(draining ? api::kDrainBlocked : api::kSurgeUnschedulable,
                 decision.surge_refused ? kRefusedSurgeFirstWait : kSurgeRetry, kSurgeRetry,
                 decision.why_no_room);
  }
  if (decision.replaced) {
    return again(api::kCrashLoop, kReplaceFirstWait, kReplaceLongestWait,
                 why(groups[*decision.replaced]));
  }
  if (decision.released) {
    return again(api::kUnschedulable, kPlaceFirstWait, kPlaceLongestWait,
                 why(groups[*decision.released]));
  }
  if (decision.fallen) {
    // A group that ends in another way meanwhile is the same trouble.
    const bool looping = backoff && backoff->reason == api::kCrashLoop;
    return again(looping ? api::kCrashLoop : api::kPodLost,
                 looping ? kReplaceFirstWait : kRenewFirstWait,
                 looping ? kReplaceLongestWait : kRenewLongestWait, why(groups[*decision.fallen]));
  }
  if (backoff && is_over(*backoff, look, groups, decision)) return std::nullopt;
  return backoff;
}

// Of a group that is not there, because nothing of it could be made.
std::optional<Refusal> refused_new_group(const Look& look, const std::vector<Group>& groups) {
  const Revision* made = look.made();
  if (made == nullptr) return std::nullopt;
  const std::string prefix = api::revision_object(look.owner.name, made->name) + "-";
  for (const auto& [name, refusal] : refused_groups(look.observed)) {
    const bool there = std::ranges::find(groups, name, &Group::name) != groups.end();
    if (name.starts_with(prefix) && !there) return refusal;
  }
  return std::nullopt;
}

RolloutDecision decide_for(const Look& look, const std::vector<Group>& groups) {
  // What a wrong spec says of the rollout is not known.
  const api::Rollout rollout = look.spec ? look.spec->rollout : api::Rollout{};
  const WallTime now = look.observed.now;
  const auto backoff = backoff_before(look);
  const Room room = room_of(look);
  return decide({.groups = groups,
                 .revision = look.revision,
                 .desired = look.granted,
                 .max_surge = rollout.max_surge,
                 .max_unavailable = rollout.max_unavailable,
                 .paused = look.held(),
                 .surge_waits = waits_for(backoff, api::kSurgeUnschedulable, now) ||
                                waits_for(backoff, api::kDrainBlocked, now),
                 .placement_waits = waits_for(backoff, api::kUnschedulable, now),
                 .may_replace = !waits_for(backoff, api::kCrashLoop, now),
                 .may_renew = !waits_for(backoff, api::kCrashLoop, now) &&
                              !waits_for(backoff, api::kPodLost, now),
                 .refused = room.refusal ? room.refusal : refused_new_group(look, groups),
                 .room = room.groups,
                 .now = now});
}

// Times at which something becomes true by itself.
void plan_wake_up(const Look& look, const std::vector<Group>& groups,
                  const RolloutDecision& decision, const std::optional<api::Backoff>& backoff,
                  Plan& plan) {
  const WallTime now = look.observed.now;
  const auto at = [&](WallTime time) {
    if (time > now) look_again_in(plan, time - now);
  };
  if (backoff) at(from_rfc3339(backoff->until) + Seconds(1));
  if (look.schedule_until) at(*look.schedule_until);
  if (look.settles) at(*look.settles);
  if (decision.lacks_room) at(now + kRetryRefused);
  const bool replacing =
      backoff && (backoff->reason == api::kCrashLoop || backoff->reason == api::kPodLost);
  if (!groups_in_queue(look.observed.pods).empty()) at(now + kQueueWordsEvery);
  for (const Group& group : groups) {
    if (group.unschedulable_since && decision.surge_pending) {
      at(*group.unschedulable_since + kSurgePatience);
    }
    if (group.unheard && look.observed.leads_since) {
      at(*look.observed.leads_since + kLeaderPatience);
    }
    if (group.half_since) at(*group.half_since + kPlacementPatience);
    const auto& stable_at = group.restarts.stable_at;
    if (stable_at && (replacing || group.restarts.recent > 0)) at(*stable_at);
    for (const PodView* pod : group.pods) {
      if (pod == nullptr) continue;
      if (pod->deletion) at(*pod->deletion + kStuckAfter + Seconds(1));
      if (pod->scheduled && !pod->sandboxed) at(*pod->scheduled + kVolumePatience);
    }
  }
}

// Between a status and the next one.
Seconds shortest_pause(const api::ModelStatus& before, const api::ModelStatus& after) {
  if (api::same_but_numbers(before, after)) return kNumbersEvery;
  return api::same_but_progress(before, after) ? kProgressEvery : Seconds(0);
}

void plan_status(const Look& look, const api::ModelStatus& after, Plan& plan) {
  const auto before = api::to_json(look.before);
  auto wanted = api::to_json(after);
  if (wanted == before) return;
  if (const auto& written = look.observed.status_written) {
    const auto next = *written + shortest_pause(look.before, after);
    if (next > look.observed.now) return look_again_in(plan, next - look.observed.now);
  }
  plan.status = std::move(wanted);
  for (auto& note : news(look.before, after)) plan.events.push_back(std::move(note));
}

}  // namespace

Plan plan(const Observed& observed) {
  Plan out;
  const Look look = look_at(observed);
  out.release = releases(observed.pods);
  if (look.going) return out;
  const auto groups =
      groups_of(observed, {look.owner.name, look.owner.uid, look.before, look.revisions,
                           recovery_rule(look.spec ? look.spec->recovery : api::Recovery{}),
                           look.spec && look.spec->sleep});
  const RolloutDecision decision = decide_for(look, groups);
  const auto avoided = avoided_nodes(look.before.avoided_nodes, groups, observed.now);
  Obstacles obstacles = plan_children(look, groups, out);
  plan_pods({look, groups, decision, avoided}, obstacles, out);
  out.lacks_room = decision.lacks_room;
  const auto staying = decision.keep.size() + decision.old.size() + decision.leaving.size();
  const bool one_more = static_cast<int>(staying) >= look.granted;
  if (decision.lacks_room && !one_more && !obstacles.refused_pod) {
    obstacles.refused_pod = room_of(look).refusal->cause;
  }
  const auto backoff = next_backoff(look, groups, decision);
  plan_wake_up(look, groups, decision, backoff, out);
  plan_status(look, report({look, groups, decision, obstacles, backoff, avoided}), out);
  return out;
}

}  // namespace dsm::plan
