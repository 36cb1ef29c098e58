// What happens at random to nodes, pods and operators of a world, said in its history. For tests;
// single-threaded.
#pragma once

#include <functional>
#include <string>

#include "operator/faults/world.h"

namespace dsm::faults {

class Troubles {
 public:
  // All must outlive it. `log` is told what happens.
  Troubles(World& world, RandomFaults& faults, std::function<void(const std::string&)> log)
      : world_(world), faults_(faults), log_(std::move(log)) {}

  void empty_or_mend_a_node();
  // A pod or its node is lost.
  void harm_a_pod();
  // One restarts, stands still, or is cut off.
  void trouble_an_operator();

 private:
  Kubelets& kubelets() { return world_.server().kubelets(); }
  // One that runs and stays; nullptr when there is none.
  plan::SimulatedPod* some_pod();
  void lose_node(const std::string& node);

  World& world_;
  RandomFaults& faults_;
  const std::function<void(const std::string&)> log_;
};

}  // namespace dsm::faults
