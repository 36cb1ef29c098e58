#include "operator/plan/rollout.h"

#include <algorithm>
#include <tuple>

namespace dsm::plan {
namespace {

using Indices = std::vector<std::size_t>;

// Works on one decision; each step takes groups out of `wanted_` or `old_`.
class Decider {
 public:
  explicit Decider(const RolloutInput& input) : in_(input) {
    for (std::size_t i = 0; i < in_.groups.size(); ++i) {
      const Group& group = in_.groups[i];
      if (group.ended || group.stuck) {
        gone_or_lost(i);
      } else if (group.revision == in_.revision) {
        wanted_.push_back(i);
      } else {
        old_.push_back(i);
      }
    }
  }

  RolloutDecision decide() {
    replace_crash_loop();
    choose_kept();
    const bool no_room = look_at_surge();
    retire_old(no_room);
    out_.create = how_many(no_room);
    out_.keep = std::move(wanted_);
    out_.old = std::move(old_);
    return std::move(out_);
  }

 private:
  const Group& at(std::size_t i) const { return in_.groups[i]; }

  void go(std::size_t i, std::string_view why, bool at_once = false) {
    out_.going.push_back({i, why, at_once});
  }

  // Nothing of it can be kept. It takes room until it is gone, but for one whose pods cannot end.
  void gone_or_lost(std::size_t i) {
    const Group& group = at(i);
    if (!group.ended) {
      go(i, "a pod of it is on a node that does not answer", true);
      ++room_taken_;
    } else if (!group.stuck) {
      ++room_taken_;
    }
    // The ended ones have pods to clear away, too: those that ended without being deleted.
    if (group.ended) go(i, "no pod of it is left", true);
  }

  // At most one at a time, the one with the most restarts.
  void replace_crash_loop() {
    if (!in_.may_replace) return;
    const auto worst = std::ranges::max_element(
        wanted_, {}, [&](std::size_t i) { return at(i).crash_looping ? at(i).restarts : -1; });
    if (worst == wanted_.end() || !at(*worst).crash_looping) return;
    go(*worst, "it keeps crashing", true);
    ++room_taken_;
    out_.replaced = true;
    wanted_.erase(worst);
  }

  // The best stay: those that serve, stay and have the most work; then the oldest numbers.
  void choose_kept() {
    std::ranges::stable_sort(wanted_, {}, [&](std::size_t i) {
      const Group& g = at(i);
      return std::tuple(!g.ready, g.leader_going, !g.served, g.unschedulable_since.has_value(),
                        -g.work, g.number);
    });
    while (static_cast<int>(wanted_.size()) > in_.desired) {
      go(wanted_.back(), "there are more groups than wanted");
      wanted_.pop_back();
      ++room_taken_;
    }
  }

  // True when no surge group can be had now.
  bool look_at_surge() {
    if (old_.empty()) return false;
    if (in_.surge_waits) return true;
    const bool surging = static_cast<int>(wanted_.size() + old_.size()) > in_.desired;
    if (!surging) return false;
    for (auto it = wanted_.begin(); it != wanted_.end(); ++it) {
      const Group& group = at(*it);
      if (!group.unschedulable_since) continue;
      out_.surge_pending = true;
      if (*group.unschedulable_since + kSurgePatience > in_.now) continue;
      if (in_.max_unavailable > 0) return true;
      go(*it, "no node has room for a surge group", true);
      wanted_.erase(it);
      ++room_taken_;
      out_.surge_failed = true;
      return true;
    }
    return false;
  }

  void retire_old(bool no_room) {
    const int spare = no_room || in_.max_surge == 0 ? in_.max_unavailable : 0;
    const int least = std::max(0, in_.desired - spare);
    const auto is_ready = [&](std::size_t i) { return at(i).ready; };
    auto ready = static_cast<int>(std::ranges::count_if(wanted_, is_ready) +
                                  std::ranges::count_if(old_, is_ready));
    // The least useful first.
    std::ranges::stable_sort(old_, {}, [&](std::size_t i) {
      const Group& g = at(i);
      return std::tuple(g.ready, g.served, !g.leader_going, g.work, g.number);
    });
    Indices stay;
    for (const std::size_t i : old_) {
      const Group& group = at(i);
      // One that served and is coming back is not given up while it is needed; one whose revision
      // is forgotten cannot come back.
      const bool may_return = group.served && group.known;
      const bool goes = group.ready ? ready - 1 >= least : !may_return || ready >= least;
      if (!goes) {
        stay.push_back(i);
        continue;
      }
      go(i, "its revision is not wanted any more");
      ++room_taken_;
      ready -= group.ready ? 1 : 0;
    }
    old_ = std::move(stay);
  }

  int how_many(bool no_room) const {
    const int missing = in_.desired - static_cast<int>(wanted_.size());
    const int surge = no_room ? 0 : in_.max_surge;
    const int there = static_cast<int>(wanted_.size() + old_.size()) + room_taken_;
    return std::clamp(in_.desired + surge - there, 0, std::max(0, missing));
  }

  const RolloutInput& in_;
  Indices wanted_;
  Indices old_;
  int room_taken_ = 0;  // groups that go and still hold their resources
  RolloutDecision out_;
};

}  // namespace

RolloutDecision decide(const RolloutInput& input) {
  return Decider(input).decide();
}

}  // namespace dsm::plan
