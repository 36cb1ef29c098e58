#include "operator/plan/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/autoscaler.h"
#include "operator/plan/cold_start.h"
#include "operator/plan/devices.h"
#include "operator/plan/sleep.h"

namespace dsm::plan {
namespace {

std::string of(int a, int b, const char* what) {
  return std::to_string(a) + " of " + std::to_string(b) + " groups " + what;
}

struct Verdict {
  api::Truth truth = api::Truth::kFalse;
  std::string_view reason;
  std::string message;
};

Verdict yes(std::string_view reason, std::string message) {
  return {api::Truth::kTrue, reason, std::move(message)};
}
Verdict no(std::string_view reason, std::string message) {
  return {api::Truth::kFalse, reason, std::move(message)};
}

class Reporter {
 public:
  explicit Reporter(const Finding& finding)
      : f_(finding), look_(finding.look), before_(finding.look.before), status_(before_) {}

  api::ModelStatus take() {
    count();
    describe_groups();
    measure();
    status_.cold_start_seconds = cold_start_seconds(before_, f_.groups);
    status_.observed_generation = look_.generation;
    status_.selector = std::string(api::kModelLabel) + "=" + look_.owner.name + "," +
                       std::string(api::kRoleLabel) + "=" + std::string(api::kRoleLeader);
    status_.endpoint =
        "http://" + api::serving_service(look_.owner.name) + "." + look_.owner.ns + ".svc";
    status_.updated_revision = look_.revision;
    if (look_.spec && complete_) status_.current_revision = look_.revision;
    status_.rollback = look_.rollback;
    status_.backoff = f_.backoff;
    status_.avoided_nodes = f_.avoided;
    find_trouble();
    set(api::kReady, ready());
    set(api::kProgressing, progressing());
    set(api::kDegraded, degraded());
    set(api::kStalled, stalled());
    describe_scaling();
    return std::move(status_);
  }

 private:
  const Group& at(std::size_t i) const { return f_.groups[i]; }

  static bool has_degraded_device(const Group& group) {
    return group.ready && group.leader_status != nullptr &&
           group.leader_status->reason == api::kDeviceDegraded;
  }

  void count() {
    const auto& d = f_.decision;
    const auto ready_of = [&](const std::vector<std::size_t>& some) {
      return static_cast<int>(
          std::ranges::count_if(some, [&](std::size_t i) { return at(i).ready; }));
    };
    kept_ready_ = ready_of(d.keep) + ready_of(d.leaving);
    ready_ = kept_ready_ + ready_of(d.old);
    const auto kept = static_cast<int>(d.keep.size() + d.leaving.size());
    const auto live = kept + static_cast<int>(d.old.size());
    // While a group goes elsewhere there is one more, which need not be ready.
    const int wanted_ready = d.leaving.empty() ? kept : look_.desired;
    complete_ = d.old.empty() && kept >= look_.desired && kept_ready_ >= wanted_ready;
    status_.replicas = std::min(look_.desired, live);
    status_.updated_replicas = std::min(look_.desired, kept);
    status_.ready_replicas = std::min(look_.desired, ready_);
    status_.ready = std::to_string(status_.ready_replicas) + "/" + std::to_string(look_.desired);
  }

  api::GroupStatus describe(const Group& group, const GoingGroup* going) const {
    api::GroupStatus out;
    out.name = group.name;
    out.revision = group.revision;
    out.restarts = group.restarts.all;
    out.recent_restarts = group.restarts.recent;
    out.served = group.served;
    const bool failed = going != nullptr && going->at_once && !group.ended && group.cause;
    if (going != nullptr && !failed) {
      out.phase = "Draining";
      out.reason = api::kDraining;
      out.message = "is removed: " + std::string(going->why);
    } else if (group.cause) {
      out.phase = group.cause->phase;
      out.reason = group.cause->reason;
      out.message = group.cause->message;
    } else {
      out.phase = "Ready";
      if (has_degraded_device(group)) {
        out.reason = api::kDeviceDegraded;
        out.message = group.leader_status->message;
      }
      if (group.leaving) {
        out.reason = why_draining(group);
        out.message =
            group.leaving->sentence() + "; it serves until another group does in its place";
      }
    }
    for (const PodView* pod : group.pods) {
      if (pod == nullptr || pod->node.empty()) continue;
      if (std::ranges::find(out.nodes, pod->node) == out.nodes.end())
        out.nodes.push_back(pod->node);
    }
    const auto old = std::ranges::find(before_.groups, group.name, &api::GroupStatus::name);
    if (group.leader_status != nullptr) {
      out.loaded_bytes = group.leader_status->loaded_bytes;
      out.total_bytes = group.leader_status->total_bytes;
    } else if (old != before_.groups.end()) {
      out.loaded_bytes = old->loaded_bytes;
      out.total_bytes = old->total_bytes;
    }
    out.devices = devices_of(group, out.nodes, old == before_.groups.end() ? nullptr : &*old);
    return out;
  }

  void describe_groups() {
    status_.groups.clear();
    for (std::size_t i = 0; i < f_.groups.size(); ++i) {
      const auto going = std::ranges::find(f_.decision.going, i, &GoingGroup::group);
      status_.groups.push_back(
          describe(at(i), going == f_.decision.going.end() ? nullptr : &*going));
    }
    for (const RefusedGroup& group : f_.obstacles.not_made) {
      api::GroupStatus& out = status_.groups.emplace_back();
      out.name = group.name;
      out.revision = group.revision;
      out.phase = group.cause.phase;
      out.reason = group.cause.reason;
      out.message = group.cause.message;
    }
    std::ranges::sort(status_.groups, {}, &api::GroupStatus::name);
  }

  // A leader that is silent for a moment (the operator has just started) does not make the numbers
  // jump to zero: those said before stand until all ready leaders have spoken.
  void measure() {
    api::Capacity sum;
    long queue = 0;
    double rate = 0;
    bool all = true;
    bool any = false;
    for (const Group& group : f_.groups) {
      const LeaderStatus* leader = group.leader_status;
      if (leader != nullptr) queue += leader->queue_depth;
      any = any || leader != nullptr;
      if (!group.ready) continue;
      all = all && leader != nullptr;
      if (leader == nullptr) continue;
      sum.kv_tokens += leader->kv_total;
      rate += leader->tokens_per_second;
      sum.max_context = sum.max_context == 0 ? leader->max_model_len
                                             : std::min(sum.max_context, leader->max_model_len);
    }
    if (any || ready_ == 0) status_.queue_depth = queue;
    if (!all) return;
    sum.tokens_per_second = std::lround(rate);
    if (ready_names(status_) == ready_names(before_)) {
      sum.tokens_per_second = std::max(sum.tokens_per_second, before_.capacity.tokens_per_second);
    }
    status_.capacity = sum;
  }

  static std::set<std::string> ready_names(const api::ModelStatus& status) {
    std::set<std::string> names;
    for (const auto& group : status.groups) {
      if (group.phase == "Ready") names.insert(group.name);
    }
    return names;
  }

  // The first thing that is wrong, from the one that a person must mend to the one that passes.
  void find_trouble() {
    if (!look_.spec) {
      trouble_ = Cause{"", look_.mistake_reason, look_.mistake, true};
    } else if (!f_.obstacles.conflicts.empty()) {
      std::string text;
      for (const auto& one : f_.obstacles.conflicts) text += (text.empty() ? "" : ". ") + one;
      trouble_ = Cause{"", api::kNameConflict, text, true};
    } else if (f_.obstacles.refused) {
      trouble_ = f_.obstacles.refused;
    } else if (!complete_) {
      // When all groups serve, it is one more that is refused.
      trouble_ = f_.obstacles.refused_pod;
    }
    const auto blame = [&](std::size_t i) {
      const Group& group = at(i);
      if (!trouble_ && group.cause && group.cause->hard) {
        trouble_ = group.cause;
        trouble_->message = "group " + group.name + ": " + trouble_->message;
      }
      const bool lost = group.cause && group.served && !group.rests;
      if (!recovering_ && lost) recovering_ = &group;
    };
    // When all is well, a group that is not ready is one more, for one that goes elsewhere.
    if (!complete_) {
      for (const auto i : f_.decision.keep) blame(i);
    }
    for (const auto i : f_.decision.leaving) blame(i);
    for (const auto i : f_.decision.old) blame(i);
    for (const auto& going : f_.decision.going) {
      if (!complete_ && at(going.group).stuck && at(going.group).served) blame(going.group);
    }
    if (!trouble_ && look_.spec && look_.granted < look_.desired) {
      trouble_ = Cause{"", api::kQuotaExceeded, look_.observed.tenant->waits_for, true};
    }
    if (trouble_ || complete_ || !f_.backoff) return;
    const std::string times = std::to_string(f_.backoff->count);
    if (f_.backoff->reason == api::kCrashLoop) {
      trouble_ = Cause{"", api::kCrashLoop,
                       "groups were replaced " + times +
                           " times because they kept ending; the last " + f_.backoff->message,
                       true};
    } else if (f_.backoff->reason == api::kPodLost) {
      trouble_ =
          Cause{"", api::kPodLost,
                "groups were made anew " + times +
                    " times because all of their pods had failed; the last " + f_.backoff->message,
                true};
    } else if (f_.backoff->reason == api::kUnschedulable) {
      trouble_ = Cause{"", api::kUnschedulable,
                       "a group could not be placed whole and gave back what it held, " + times +
                           " times; it is tried again at " + f_.backoff->until + "; " +
                           f_.backoff->message,
                       true};
    }
  }

  bool surge_failed() const { return f_.backoff && f_.backoff->reason == api::kSurgeUnschedulable; }

  // A group that should go elsewhere cannot, because there is no room for another one.
  bool drain_blocked() const {
    const bool tried = f_.backoff && f_.backoff->reason == api::kDrainBlocked;
    return (f_.decision.no_room || tried) && leaving_group() != nullptr;
  }

  const Group* leaving_group() const {
    for (const auto* some : {&f_.decision.leaving, &f_.decision.old}) {
      for (const auto i : *some) {
        if (at(i).leaving) return &at(i);
      }
    }
    return nullptr;
  }

  static std::string_view why_draining(const Group& group) {
    return group.leaving->asked() ? api::kGroupDraining : api::kNodeDraining;
  }

  std::string leaving_message() const {
    const Group& group = *leaving_group();
    return group.leaving->sentence() + "; group " + group.name;
  }

  // Why one more group cannot be had, as found out now or the last time.
  std::string why_no_room() const {
    if (!f_.decision.why_no_room.empty() || !f_.backoff) return f_.decision.why_no_room;
    return f_.backoff->message;
  }

  std::string blocked_message() const {
    return leaving_message() +
           " should go elsewhere, but there is no room for another one: " + why_no_room() +
           ". It stays and serves. Make room, or " +
           (leaving_group()->leaving->asked() ? "take the drain back (dsmctl drain --cancel)"
                                              : "uncordon the node") +
           "; it is tried again every few minutes";
  }

  // Nothing but the rollout is left to do, and that is paused.
  bool waits_paused() const {
    return look_.paused() && !f_.decision.old.empty() && ready_ >= look_.desired;
  }

  std::string paused_message() const { return "spec.rollout.paused is true: " + rolling_message(); }

  // Everything serves, and it is not what the spec asks for.
  std::string rolled_back_message() const {
    return "the spec asks for revision " + look_.rollback->from + ", which annotation " +
           std::string(api::kRollbackAnnotation) + " rolls back; " +
           of(kept_ready_, look_.desired, "answer with revision ") + look_.revision +
           ". Edit the spec (where it is in git, revert it there), or take the annotation away to "
           "roll " +
           look_.rollback->from + " out again";
  }

  // Every group sleeps, as it shall.
  bool sleeps() const {
    const auto& d = f_.decision;
    return !complete_ && d.old.empty() && static_cast<int>(d.keep.size()) >= look_.desired &&
           std::ranges::all_of(d.keep, [&](std::size_t i) {
             return at(i).stands && at(i).cause && at(i).cause->reason == api::kAsleep;
           });
  }

  std::string sleep_message() const {
    return "spec.sleep is true: the groups refuse requests and their devices' memory is free for "
           "others; dsmctl wake " +
           look_.owner.name + " wakes them";
  }

  bool any_kept(std::string_view reason) const {
    return std::ranges::any_of(f_.decision.keep, [&](std::size_t i) {
      return at(i).cause && at(i).cause->reason == reason;
    });
  }

  Verdict ready() const {
    const auto& d = f_.decision;
    if (!look_.spec) return no(trouble_->reason, trouble_->message);
    if (before_.conditions.empty()) {
      return {api::Truth::kUnknown, api::kFirstVisit, "the operator has just seen this model"};
    }
    if (trouble_) return no(trouble_->reason, trouble_->message);
    if (complete_ && look_.rolled_back()) return no(api::kRolledBack, rolled_back_message());
    if (complete_ && look_.desired == 0) {
      return yes(api::kScaledToZero, "spec.replicas is 0: nothing runs, requests are refused");
    }
    if (complete_) {
      return yes(api::kAllGroupsReady,
                 of(kept_ready_, look_.desired, "answer at ") + status_.endpoint);
    }
    if (surge_failed()) return no(api::kSurgeUnschedulable, surge_message());
    if (waits_paused()) return no(api::kRolloutPaused, paused_message());
    if (!d.old.empty() && !look_.paused()) return no(api::kRollingUpdate, rolling_message());
    if (sleeps()) return no(api::kAsleep, sleep_message());
    for (const auto i : d.keep) {
      if (at(i).cause) {
        return no(at(i).cause->reason, "group " + at(i).name + ": " + at(i).cause->message);
      }
    }
    return no(api::kCreatingGroups, of(ready_, look_.desired, "are ready"));
  }

  std::string rolling_message() const {
    std::string text = of(kept_ready_, look_.desired, "are ready with revision ") + look_.revision +
                       "; " + of(status_.ready_replicas, look_.desired, "answer");
    if (look_.rolled_back()) text += "; revision " + look_.rollback->from + " is rolled back";
    if (f_.decision.no_room && !f_.decision.why_no_room.empty()) {
      text +=
          "; old groups go first (spec.rollout.maxUnavailable), since there is no room for one "
          "more: " +
          f_.decision.why_no_room;
    }
    return text;
  }

  std::string surge_message() const {
    return "there is no room for one more group, of revision " + look_.revision + ": " +
           why_no_room() +
           ". Make room, or set spec.rollout.maxUnavailable to 1 so that an old group goes first; "
           "it is tried again every few minutes";
  }

  Verdict progressing() const {
    const auto& d = f_.decision;
    if (!look_.spec && !drain_blocked()) {
      return no(look_.mistake_reason,
                "nothing is changed until that is mended; groups that are there are kept whole");
    }
    if (surge_failed()) return no(api::kSurgeUnschedulable, surge_message());
    if (drain_blocked()) return no(api::kDrainBlocked, blocked_message());
    if (!d.old.empty() && !look_.paused()) return yes(api::kRollingUpdate, rolling_message());
    if (leaving_group() != nullptr) {
      return yes(why_draining(*leaving_group()),
                 leaving_message() + " goes when another one serves in its place");
    }
    if (recovering_ != nullptr) {
      return yes(api::kRecovering, "group " + recovering_->name + " is mended");
    }
    if (waits_paused()) return no(api::kRolloutPaused, paused_message());
    if (sleeps()) return no(api::kAsleep, sleep_message());
    if (any_kept(api::kFallingAsleep)) {
      return yes(api::kFallingAsleep, "groups finish their requests before they sleep");
    }
    if (any_kept(api::kWaking)) return yes(api::kWaking, of(ready_, look_.desired, "are awake"));
    if (!complete_) return yes(api::kCreatingGroups, of(ready_, look_.desired, "are ready"));
    if (!d.going.empty()) {
      return yes(api::kRemovingGroups,
                 std::to_string(d.going.size()) + " groups finish their requests and go");
    }
    if (look_.rolled_back()) return no(api::kRolledBack, rolled_back_message());
    return no(api::kAsWanted, "there is nothing to change");
  }

  Verdict degraded() const {
    if (trouble_) {
      const bool also = !look_.spec && drain_blocked();
      return yes(trouble_->reason, trouble_->message + (also ? ". " + blocked_message() : ""));
    }
    if (drain_blocked()) return yes(api::kDrainBlocked, blocked_message());
    if (recovering_ != nullptr) {
      return yes(recovering_->cause->reason,
                 "group " + recovering_->name +
                     " has served and is coming back: " + recovering_->cause->message);
    }
    if (const auto group = std::ranges::find_if(f_.groups, has_degraded_device);
        group != f_.groups.end()) {
      return yes(api::kDeviceDegraded,
                 "group " + group->name + " serves, but " + group->leader_status->message);
    }
    return no(api::kAsWanted, "nothing is wrong");
  }

  Verdict stalled() const {
    if (trouble_ && (!look_.spec || trouble_->reason == api::kNameConflict)) {
      return yes(trouble_->reason, trouble_->message);
    }
    if (surge_failed()) return yes(api::kSurgeUnschedulable, surge_message());
    if (trouble_ && !complete_ && f_.backoff && f_.backoff->count >= stalled_after()) {
      return yes(f_.backoff->reason, trouble_->message);
    }
    if (complete_ && look_.rolled_back()) return yes(api::kRolledBack, rolled_back_message());
    return no(api::kAsWanted, "nothing waits for a person");
  }

  // Tries without success.
  int stalled_after() const {
    if (f_.backoff->reason == api::kCrashLoop) return kStalledAfterReplacements;
    return f_.backoff->reason == api::kPodLost ? kStalledAfterRenewals
                                               : std::numeric_limits<int>::max();
  }

  void describe_scaling() {
    const auto* autoscaler =
        look_.child("HorizontalPodAutoscaler", api::autoscaler(look_.owner.name));
    if (auto condition = scaling_condition(look_, autoscaler)) {
      api::set_condition(status_, *std::move(condition), look_.observed.now);
    } else {
      std::erase_if(status_.conditions,
                    [](const api::Condition& c) { return c.type == api::kScalingActive; });
    }
  }

  void set(std::string_view type, const Verdict& verdict) {
    api::Condition condition;
    condition.type = type;
    condition.status = verdict.truth;
    condition.observed_generation = look_.generation;
    condition.reason = verdict.reason;
    condition.message = verdict.message;
    api::set_condition(status_, std::move(condition), look_.observed.now);
  }

  const Finding& f_;
  const Look& look_;
  const api::ModelStatus& before_;
  api::ModelStatus status_;
  int kept_ready_ = 0;  // ready groups of the wanted revision
  int ready_ = 0;       // and of others that stay
  bool complete_ = false;
  std::optional<Cause> trouble_;
  const Group* recovering_ = nullptr;
};

}  // namespace

api::ModelStatus report(const Finding& finding) {
  return Reporter(finding).take();
}

}  // namespace dsm::plan
