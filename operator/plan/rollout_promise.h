// What a user may count on while a model changes, watched second by second beside a history: how
// few groups may be ready, and how many may exist. What a change allows for a while is allowed
// until the operator has seen it and done it. For tests.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dsm::plan {

// Groups that a spec asks for: within the bounds of its scaling, if it has some.
int groups_asked_for(const nlohmann::json& spec);

class RolloutPromise {
 public:
  // `groups` that have pods, `ready` ones among them. Returns what was promised and is not so.
  std::vector<std::string> check(const nlohmann::json& model, int groups, int ready);
  // Somebody else takes a group that stands, as a queue does that evicts it: one less is promised
  // until all are ready again.
  void take_one();
  // Something happened that nobody promises anything for: until all is well again anything goes.
  void excuse();

 private:
  static constexpr int kNoCeiling = 1'000'000;
  int floor_ = 0;
  int ceiling_ = 0;
};

}  // namespace dsm::plan
