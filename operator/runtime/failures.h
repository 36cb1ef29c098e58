// The writes that the API server refused, per model, for the next decision to look at. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "operator/plan/observed.h"

namespace dsm::runtime {

class Failures {
 public:
  static constexpr std::chrono::minutes kKept{10};

  // One more of the same kind is in a row with those before.
  void record(const std::string& model, plan::WriteFailure failure);
  void forget(const std::string& model, const std::string& kind, const std::string& name);
  void forget_model(const std::string& model);
  // Those younger than kKept.
  std::vector<plan::WriteFailure> of_model(const std::string& model, WallTime now);

 private:
  std::mutex mutex_;
  std::map<std::string, std::map<std::string, plan::WriteFailure>> failures_;  // "Kind/name"
};

}  // namespace dsm::runtime
