#include "base/http/router.h"

namespace dsm::http {

void Router::add(const std::string& method, const std::string& path, Target target) {
  if (path.ends_with("/*")) {
    prefix_[path.substr(0, path.size() - 1)][method] = std::move(target);
  } else {
    exact_[path][method] = std::move(target);
  }
}

const Router::Methods* Router::methods_of(std::string_view path) const {
  if (const auto found = exact_.find(path); found != exact_.end()) return &found->second;
  const Methods* best = nullptr;
  std::size_t best_length = 0;
  for (const auto& [prefix, methods] : prefix_) {
    if (path.starts_with(prefix) && prefix.size() > best_length) {
      best = &methods;
      best_length = prefix.size();
    }
  }
  return best;
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
  const Methods* methods = methods_of(path);
  if (methods == nullptr) return {.status = 404};
  auto found = methods->find(method);
  if (found == methods->end() && method == "HEAD") {
    // A GET whose body is left out; an answer that streams has no length to tell.
    found = methods->find("GET");
    if (found != methods->end() && !std::holds_alternative<Handler>(found->second)) {
      found = methods->end();
    }
  }
  if (found != methods->end()) return {.target = &found->second};
  Match match{.status = 405};
  for (const auto& [name, target] : *methods) {
    match.allow += (match.allow.empty() ? "" : ", ") + name;
  }
  return match;
}

}  // namespace dsm::http
