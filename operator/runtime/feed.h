// A watch that a loop lives on: what it brings goes to `take`. The loop's owner runs it: the
// controller on a thread of its own, the fault simulation step by step.
#pragma once

#include <string>

#include "kube/resource.h"
#include "kube/watcher.h"

namespace dsm::runtime {

struct Feed {
  kube::Resource resource;
  std::string label_selector;
  kube::Watcher::Handler take;
  std::string field_selector = {};
};

}  // namespace dsm::runtime
