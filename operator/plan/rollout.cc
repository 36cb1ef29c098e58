#include "operator/plan/rollout.h"

#include <algorithm>
#include <tuple>

namespace dsm::plan {
namespace {

using Indices = std::vector<std::size_t>;

// Works on one decision; each step takes groups out of `wanted_` or `retiring_`.
class Decider {
 public:
  explicit Decider(const RolloutInput& input) : in_(input) {
    for (std::size_t i = 0; i < in_.groups.size(); ++i) {
      const Group& group = in_.groups[i];
      if (group.stuck || (group.ended && !waits_to_be_renewed(group))) {
        gone_or_lost(i);
      } else if (!group.leaving && is_wanted(group)) {
        wanted_.push_back(i);
      } else {
        retiring_.push_back(i);
      }
    }
  }

  RolloutDecision decide() {
    replace_spent();
    choose_kept();
    if (!release_half_placed(wanted_)) release_half_placed(retiring_);
    out_.no_room = look_at_surge();
    leave_ending_nodes();
    retire();
    out_.create = std::min(how_many(), in_.room);
    out_.lacks_room = in_.room == 0 && missing() > 0;
    for (const std::size_t i : wanted_) {
      (at(i).revision == in_.revision ? out_.keep : out_.old).push_back(i);
    }
    for (const std::size_t i : retiring_) {
      (at(i).revision == in_.revision ? out_.leaving : out_.old).push_back(i);
    }
    return std::move(out_);
  }

 private:
  const Group& at(std::size_t i) const { return in_.groups[i]; }

  void go(std::size_t i, std::string_view why, bool at_once = false) {
    out_.going.push_back({i, why, at_once});
  }

  bool is_wanted(const Group& group) const { return group.revision == in_.revision || in_.paused; }

  bool waits_to_be_renewed(const Group& group) const {
    return group.fallen && !in_.may_renew && is_wanted(group);
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
    if (group.fallen && is_wanted(group)) out_.fallen = i;
  }

  // At most one at a time, the one with the most restarts. One that is ready just now serves on.
  void replace_spent() {
    if (!in_.may_replace) return;
    const auto restarts = [&](std::size_t i) {
      const Group& group = at(i);
      return group.restarts.spent && !group.stands ? group.restarts.recent : -1;
    };
    const auto worst = std::ranges::max_element(wanted_, {}, restarts);
    if (worst == wanted_.end() || restarts(*worst) < 0) return;
    go(*worst, "it kept ending", true);
    ++room_taken_;
    out_.replaced = *worst;
    wanted_.erase(worst);
  }

  // The best stay: those that serve, stay and have the most work; then the oldest numbers.
  void choose_kept() {
    std::ranges::stable_sort(wanted_, {}, [&](std::size_t i) {
      const Group& g = at(i);
      return std::tuple(!g.stands, g.leader_going, !g.served && !g.unheard,
                        g.incomplete_since.has_value(), -g.work, g.number);
    });
    while (static_cast<int>(wanted_.size()) > in_.desired) {
      go(wanted_.back(), "there are more groups than wanted");
      wanted_.pop_back();
      ++room_taken_;
    }
  }

  // At most one at a time, the least useful: what it gives back may be what another one needs.
  bool release_half_placed(Indices& from) {
    for (auto it = from.rbegin(); it != from.rend(); ++it) {
      const Group& group = at(*it);
      if (!group.half_since || *group.half_since + kPlacementPatience > in_.now) continue;
      go(*it, "it did not come whole; it gives back what some of its pods hold", true);
      ++room_taken_;
      out_.released = *it;
      from.erase(std::next(it).base());
      return true;
    }
    return false;
  }

  // True when no surge group can be had now.
  bool look_at_surge() {
    if (retiring_.empty()) return false;
    if (in_.surge_waits) return true;
    const auto there = static_cast<int>(wanted_.size() + retiring_.size());
    if (there >= in_.desired && in_.refused && in_.refused->again()) {
      out_.surge_refused = true;
      out_.why_no_room = in_.refused->cause.message;
      out_.surge_failed = in_.max_unavailable == 0;
      return true;
    }
    if (there <= in_.desired) return false;
    for (auto it = wanted_.begin(); it != wanted_.end(); ++it) {
      const Group& group = at(*it);
      if (!group.incomplete_since) continue;
      out_.surge_pending = true;
      const bool refused = group.refused && group.refused->again();
      if (!refused && !unschedulable_for(group, kSurgePatience)) continue;
      out_.surge_refused = refused;
      out_.why_no_room =
          refused ? group.refused->cause.message : "no node had room for one more group";
      if (in_.max_unavailable > 0) return true;
      go(*it, "there is no room for a surge group", true);
      wanted_.erase(it);
      ++room_taken_;
      out_.surge_failed = true;
      return true;
    }
    return false;
  }

  bool unschedulable_for(const Group& group, Seconds patience) const {
    return group.unschedulable_since && *group.unschedulable_since + patience <= in_.now;
  }

  // Their pods end with the node, so what they hold is no room for others and is not counted.
  void leave_ending_nodes() {
    std::erase_if(retiring_, [&](std::size_t i) {
      if (!at(i).leaving || !at(i).leaving->urgent) return false;
      go(i, "its node is about to end");
      return true;
    });
  }

  // Whether an old group may go although that leaves one less than wanted ready.
  int spare(const Group& group) const {
    const bool makes_room =
        in_.max_surge == 0 ||
        (out_.no_room && (!group.leaving || group.leaving->asked() || out_.surge_refused));
    return makes_room ? in_.max_unavailable : 0;
  }

  void retire() {
    const auto is_ready = [&](std::size_t i) { return at(i).stands; };
    auto ready = static_cast<int>(std::ranges::count_if(wanted_, is_ready) +
                                  std::ranges::count_if(retiring_, is_ready));
    // The least useful first.
    std::ranges::stable_sort(retiring_, {}, [&](std::size_t i) {
      const Group& g = at(i);
      return std::tuple(g.stands, g.served || g.unheard, !g.leader_going, g.work, g.number);
    });
    Indices stay;
    for (const std::size_t i : retiring_) {
      const Group& group = at(i);
      const int least = std::max(0, in_.desired - spare(group));
      // One that served or slept and is coming back is not given up while it is needed, nor one
      // that may serve, of which an operator that has just begun to lead has not heard; one whose
      // revision is forgotten cannot come back.
      const bool may_return = (group.served || group.rests || group.unheard) && group.known;
      const bool goes = group.stands ? ready - 1 >= least : !may_return || ready >= least;
      if (!goes) {
        stay.push_back(i);
        continue;
      }
      go(i, why_retired(group));
      ++room_taken_;
      ready -= group.stands ? 1 : 0;
    }
    retiring_ = std::move(stay);
  }

  std::string_view why_retired(const Group& group) const {
    if (!is_wanted(group)) return "its revision is not wanted any more";
    return group.leaving && group.leaving->asked() ? "it is asked to go"
                                                   : "its node is being emptied";
  }

  int missing() const { return std::max(0, in_.desired - static_cast<int>(wanted_.size())); }

  int how_many() const {
    if (in_.placement_waits || out_.released) return 0;
    const int surge = out_.no_room ? 0 : in_.max_surge;
    const int there = static_cast<int>(wanted_.size() + retiring_.size()) + room_taken_;
    return std::clamp(in_.desired + surge - there, 0, missing());
  }

  const RolloutInput& in_;
  Indices wanted_;
  Indices retiring_;    // of other revisions, or leaving
  int room_taken_ = 0;  // groups that go and still hold their resources
  RolloutDecision out_;
};

}  // namespace

RolloutDecision decide(const RolloutInput& input) {
  return Decider(input).decide();
}

bool any_leaving(const std::vector<Group>& groups, const RolloutDecision& decision) {
  const auto is_leaving = [&](std::size_t i) { return groups[i].leaving.has_value(); };
  return std::ranges::any_of(decision.leaving, is_leaving) ||
         std::ranges::any_of(decision.old, is_leaving);
}

}  // namespace dsm::plan
