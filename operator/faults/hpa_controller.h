// Kubernetes' controller of HorizontalPodAutoscalers in the simulated cluster, for External metrics
// with AverageValue (pkg/controller/podautoscaler): every 15 s it asks for each number and sets
// replicas of the model, within the bounds, the tolerance, the policies upwards and the window
// downwards of the autoscaler. With a number that is not known it does not scale down, and without
// any not at all. It forgets its recommendations when the autoscaler is made anew. For tests;
// single-threaded.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "operator/faults/api_server.h"

namespace dsm::faults {

class HpaController {
 public:
  struct Hooks {
    // A number of a model, which is named by its key.
    std::function<Result<double>(const std::string& model, const std::string& metric)> ask;
    // It is about to scale.
    std::function<void(const std::string& model, int from, int to)> scales;
  };

  HpaController(ApiServer& server, Hooks hooks) : server_(server), hooks_(std::move(hooks)) {}

  void pass_second();
  // How often it has changed what it says of an autoscaler.
  long said() const { return said_; }

 private:
  struct Memory {
    int next = 0;                            // second of its next look
    std::deque<std::pair<int, int>> wished;  // second, replicas
    std::deque<std::pair<int, int>> added;   // second, by so many
  };
  // What the metrics ask for, and whether all of them were known.
  struct Wish {
    std::optional<int> replicas;
    bool all_known = true;
  };

  int now_s() const { return server_.kubelets().now_s(); }
  void look(const std::string& key, Json autoscaler, Memory& memory);
  std::optional<int> desired(const std::string& model, int current, int there, Json& autoscaler,
                             Memory& memory);
  Wish wish(const std::string& model, int there, const Json& spec);
  int smoothed(int wished, int current, const Json& spec, Memory& memory) const;
  int most_upwards(int current, const Json& spec, Memory& memory) const;
  void say(Json& autoscaler, const char* condition, bool is, const char* reason);

  ApiServer& server_;
  const Hooks hooks_;
  std::map<std::string, Memory> memories_;  // by the autoscaler's uid
  long said_ = 0;
};

}  // namespace dsm::faults
