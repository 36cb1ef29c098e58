// What differs between two specs, as a merge patch for the API server and as lines for a person.
// Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dsm::ctl {

// The JSON merge patch (RFC 7386) that makes `to` of `from`; an empty object when they are equal.
// Both are objects.
nlohmann::json merge_diff(const nlohmann::json& from, const nlohmann::json& to);

struct Change {
  std::string path;       // spec.model.revision
  nlohmann::json before;  // null: not said
  nlohmann::json after;
};
// In the order of their paths, which begin with `path`.
std::vector<Change> changes(const nlohmann::json& from, const nlohmann::json& to,
                            const std::string& path = "spec");
// spec.model.revision: "a" -> "b"
std::string to_text(const Change& change);

}  // namespace dsm::ctl
