// A child that is made by server-side apply. An apply that names a resource version meets only an
// object of just that version; where there is none it makes one. So one that names a version that
// nothing has makes what is not there and is refused (409) where the name is taken, as a POST is,
// and never takes over what somebody else has made. Unlike after a POST, all fields are those of
// applies: a later apply takes away what it does not say any more.
#pragma once

#include <nlohmann/json.hpp>
#include <utility>

#include "operator/plan/plan.h"

namespace dsm::plan {

// etcd's revision while it is empty.
inline constexpr const char* kVersionOfNothing = "1";

// The object, for ChildWrite::Verb::kApply or kube::Client::apply.
inline nlohmann::json made_by_apply(nlohmann::json object) {
  object["metadata"]["resourceVersion"] = kVersionOfNothing;
  return object;
}

// Whether the write makes a child, and is refused where the name is taken.
inline bool makes(const ChildWrite& write) {
  if (write.verb != ChildWrite::Verb::kApply) return write.verb == ChildWrite::Verb::kCreate;
  return write.object["metadata"].value("resourceVersion", "") == kVersionOfNothing;
}

}  // namespace dsm::plan
