// Which handler answers a method and a path. Filled before the server starts, constant afterwards,
// so it needs no lock.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/http/server.h"

namespace dsm::http {

class Router {
 public:
  using Target = std::variant<Handler, AsyncHandler>;

  // `path` is exact, or a prefix when it ends with "/*"; exact wins, then the longest prefix.
  void add(const std::string& method, const std::string& path, Target target);

  struct Match {
    const Target* target = nullptr;  // null: `status` says why
    int status = 200;                // 404, or 405 with the methods that the path has
    std::string allow = {};
  };
  Match find(std::string_view method, std::string_view path) const;

 private:
  using Methods = std::map<std::string, Target, std::less<>>;
  const Methods* methods_of(std::string_view path) const;

  std::map<std::string, Methods, std::less<>> exact_;
  std::map<std::string, Methods, std::less<>> prefix_;  // key without the "*"
};

}  // namespace dsm::http
