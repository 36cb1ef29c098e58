// Why a group, or a model, is as it is. Private to operator/plan.
#pragma once

#include <string>
#include <string_view>

namespace dsm::plan {

// A hard cause does not pass by waiting a little.
struct Cause {
  std::string phase;  // of api::GroupStatus
  std::string_view reason;
  std::string message;
  bool hard = false;
};

}  // namespace dsm::plan
