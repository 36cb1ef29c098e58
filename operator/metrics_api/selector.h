// Kubernetes label selectors, as autoscalers send them: "model=r1", "model in (a,b),!old". Pure.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::metrics_api {

struct Requirement {
  enum class Op { kIn, kNotIn, kExists, kNotExists };
  std::string key;
  Op op = Op::kIn;
  std::vector<std::string> values;  // of kIn and kNotIn

  bool operator==(const Requirement&) const = default;
};
using Selector = std::vector<Requirement>;  // all must hold; empty: everything

// kInvalid with what is wrong. "=", "==" and "!=" become kIn and kNotIn of one value.
Result<Selector> parse_selector(std::string_view text);

bool matches(const Selector& selector, const std::map<std::string, std::string>& labels);

}  // namespace dsm::metrics_api
