// How the loop of the models hears leaders and tells them things; behind it are HTTP streams and
// requests, or a simulation. Implementations are thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "operator/plan/observed.h"
#include "operator/plan/tenant_keys.h"
#include "operator/runtime/status_streams.h"

namespace dsm::runtime {

class LeaderLines {
 public:
  virtual ~LeaderLines() = default;

  // The model's leaders from now on, who are heard with this token; "": nobody is.
  virtual void set(const std::string& model, const std::vector<Leader>& leaders,
                   const std::string& token) = 0;
  // What each of them said last, by the uid of its pod.
  virtual std::map<std::string, plan::LeaderStatus> latest(const std::string& model) const = 0;
  // Which API keys open them.
  virtual void tell_keys(const std::string& model, const std::vector<Leader>& leaders,
                         const std::string& token, const plan::KeyMessage& keys) = 0;
  // To sleep or to wake.
  virtual void tell_sleep(const std::string& model, const std::vector<Leader>& leaders,
                          const std::string& token, bool sleep) = 0;
  // The model is gone.
  virtual void forget(const std::string& model) = 0;
};

}  // namespace dsm::runtime
