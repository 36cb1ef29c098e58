// Whose the fields of one object are, as server-side apply counts them: a field belongs to every
// manager that said it and whose word has not been changed since, applies and other writes of the
// same manager apart. For tests; single-threaded.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace dsm::faults {

using Json = nlohmann::json;

class ManagedFields {
 public:
  // What an apply with force makes of `there`. What this manager applied before, does not say any
  // more and nobody else has said goes.
  Json apply(const Json& there, const Json& wanted, const std::string& manager);
  // Another write has made `after` of `before`.
  void update(const Json& before, const Json& after, const std::string& manager);

  // "manager Apply" or "manager Update" of those that have a field, in their order.
  std::set<std::string> owners() const;

 private:
  void forget(const std::string& path);  // nobody has it any more

  std::map<std::string, std::set<std::string>> fields_;  // paths, by their owner
};

}  // namespace dsm::faults
