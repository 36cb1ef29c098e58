#include "worker/group/adapter_roll.h"

#include <algorithm>
#include <utility>

namespace dsm::group {

bool AdapterRoll::want(std::vector<SharedAdapter> adapters) {
  if (adapters == message_.adapters) {
    return false;
  }
  message_ = {.version = message_.version + 1, .adapters = std::move(adapters)};
  return true;
}

void AdapterRoll::joined(int pod) {
  pods_[pod] = {};
  ++message_.version;
}

void AdapterRoll::heard(int pod, HaveAdapters said) {
  const auto found = pods_.find(pod);
  if (found == pods_.end()) {
    return;
  }
  found->second.version = said.version;
  found->second.failures = std::move(said.failures);
}

std::string AdapterRoll::sentence(int pod, const AdapterFailure& failure) const {
  const auto which = std::ranges::find(message_.adapters, failure.id, &SharedAdapter::id);
  const std::string name = which == message_.adapters.end() ? "" : " '" + which->name + "'";
  return "pod " + std::to_string(pod) + " cannot load the adapter" + name + ": " + failure.message;
}

std::string AdapterRoll::complaint() const {
  if (static_cast<int>(pods_.size()) < others_) {
    return "the group is not whole: " + std::to_string(pods_.size()) + " of " +
           std::to_string(others_) + " other pods are connected";
  }
  for (const auto& [index, pod] : pods_) {
    if (!is_current(pod)) {
      return "pod " + std::to_string(index) + " loads adapters";
    }
    if (!pod.failures.empty()) {
      return sentence(index, pod.failures.front());
    }
  }
  return "";
}

std::optional<Status> AdapterRoll::verdict(engine::AdapterId id) const {
  if (std::ranges::find(message_.adapters, id, &SharedAdapter::id) == message_.adapters.end()) {
    return std::nullopt;
  }
  if (static_cast<int>(pods_.size()) < others_) {
    return fail(ErrorKind::kTransient, complaint());
  }
  bool all_current = true;
  for (const auto& [index, pod] : pods_) {
    all_current = all_current && is_current(pod);
    const auto failed = std::ranges::find(pod.failures, id, &AdapterFailure::id);
    if (is_current(pod) && failed != pod.failures.end()) {
      return fail(ErrorKind::kInvalid, sentence(index, *failed));
    }
  }
  if (!all_current) {
    return std::nullopt;
  }
  return Status();
}

bool AdapterRoll::failed() const {
  return std::ranges::any_of(
      pods_, [&](const auto& p) { return is_current(p.second) && !p.second.failures.empty(); });
}

}  // namespace dsm::group
