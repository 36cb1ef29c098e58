#include "operator/runtime/failures.h"

namespace dsm::runtime {

void Failures::record(const std::string& model, plan::WriteFailure failure) {
  const std::lock_guard lock(mutex_);
  plan::WriteFailure& known = failures_[model][failure.kind + "/" + failure.name];
  if (!known.kind.empty() && known.error == failure.error) {
    failure.since = known.since.value_or(known.time);
  }
  known = std::move(failure);
}

void Failures::forget(const std::string& model, const std::string& kind, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto of_model = failures_.find(model);
  if (of_model == failures_.end()) return;
  of_model->second.erase(kind + "/" + name);
  if (of_model->second.empty()) failures_.erase(of_model);
}

void Failures::forget_model(const std::string& model) {
  const std::lock_guard lock(mutex_);
  failures_.erase(model);
}

std::vector<plan::WriteFailure> Failures::of_model(const std::string& model, WallTime now) {
  const std::lock_guard lock(mutex_);
  std::vector<plan::WriteFailure> result;
  const auto found = failures_.find(model);
  if (found == failures_.end()) return result;
  std::erase_if(found->second, [&](const auto& entry) { return now - entry.second.time >= kKept; });
  for (const auto& [key, failure] : found->second) result.push_back(failure);
  return result;
}

}  // namespace dsm::runtime
