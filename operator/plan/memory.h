// Whether the pods of a model have the memory that it takes, as far as its spec says both. Pure.
#pragma once

#include <optional>
#include <string>

#include "operator/api/spec.h"

namespace dsm::plan {

struct MemoryCheck {
  bool fits = false;
  std::string sentence;  // what is needed and what is there; when it does not fit, what to change

  bool operator==(const MemoryCheck&) const = default;
};

// nullopt: it is not known, because spec.sizing.modelConfig or the memory (the limit of the pods,
// or that of one GPU) is not said, or the model is of a family whose sizes are not known here.
std::optional<MemoryCheck> memory_of(const api::Spec& spec);

}  // namespace dsm::plan
