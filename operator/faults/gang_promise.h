// What holds of groups that are admitted and get their nodes only whole: none of a model with a
// queue is begun without its quota, none holds nodes for ever while a part of it has none, and
// nothing that was held for a group is left when it is gone. For tests; single-threaded.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "operator/faults/kueue_controller.h"
#include "operator/faults/world.h"

namespace dsm::faults {

class GangPromise {
 public:
  // Both must outlive it.
  GangPromise(World& world, const KueueController& kueue) : world_(world), kueue_(kueue) {}

  void check_second();
  // All is quiet.
  void check_end();
  // And the models are gone.
  void check_gone();

 private:
  const Objects& objects() const { return std::as_const(world_.server()).objects(); }
  // The queue of the revision that a pod is of; "": it names none, or is not known.
  std::string queue_of(const Json& pod) const;
  void check_admission();
  void check_halves();

  World& world_;
  const KueueController& kueue_;
  std::map<std::string, long> half_since_;  // groups of which a part has nodes
};

}  // namespace dsm::faults
