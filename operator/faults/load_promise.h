// What holds of the numbers that autoscalers read: one that is served is none that is too low. What
// an operator says of a leader may be as old as its newest line counts, and as watches are late: so
// it says no less than the sum of what each leader has held all through that time. For tests;
// single-threaded.
#pragma once

#include <deque>
#include <map>
#include <string>

#include "operator/faults/world.h"

namespace dsm::faults {

class LoadPromise {
 public:
  // Gives the requests that wait for a model to its leaders that stand, in equal shares. Must
  // outlive it.
  explicit LoadPromise(World& world);

  std::map<std::string, long> waiting;  // requests, by the model's key

  // What leaders hold now is kept.
  void pass_second();
  // An operator says so many of a model.
  void check(const std::string& who, const std::string& model, double said);

 private:
  // Lines count for 5 s; events of pods are late by up to 8 s, and lists by 3 s.
  static constexpr long kOldest = 20;

  std::vector<const plan::SimulatedPod*> standing(const std::string& model) const;
  long queue_of(const plan::SimulatedPod& leader) const;
  // All that time by the same leaders.
  long held(const std::string& model) const;

  World& world_;
  // What each leader, by its uid, held in the last seconds, the newest last.
  std::map<std::string, std::deque<std::map<std::string, long>>> held_;
};

}  // namespace dsm::faults
