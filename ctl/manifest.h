// The DeepSeekModels in a file that is meant for `kubectl apply -f`: YAML or JSON, one or several
// documents. Pure; the only reader of YAML here.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace dsm::ctl {

struct Manifest {
  std::vector<nlohmann::json> models;
  std::vector<std::string> others;  // "Service web": what else is in the file
};

inline constexpr std::size_t kLongestManifest = 1U << 20;

// kInvalid says what cannot be read, and where. Plain scalars mean what kubectl takes them for.
Result<Manifest> parse_manifest(const std::string& text);

// The model as it would be after `kubectl apply` of the manifest: fields that the manifest says,
// those that it said at the last apply and says no more taken away, and everything else as it is.
// `live` is null where there is no such model. A changed spec has the next generation.
nlohmann::json applied(const nlohmann::json& live, const nlohmann::json& manifest);

}  // namespace dsm::ctl
