#include "operator/faults/load_promise.h"

#include <algorithm>
#include <cmath>

#include "kube/parse.h"
#include "operator/api/names.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

std::string model_of(const Json& pod) {
  return kube::text_of(pod["metadata"], "namespace") + "/" + plan::label(pod, api::kModelLabel);
}

}  // namespace

LoadPromise::LoadPromise(World& world) : world_(world) {
  world_.server().kubelets().queue_of = [this](const plan::SimulatedPod& leader) {
    return queue_of(leader);
  };
}

std::vector<const plan::SimulatedPod*> LoadPromise::standing(const std::string& model) const {
  std::vector<const plan::SimulatedPod*> leaders;
  for (const plan::SimulatedPod& pod : world_.server().kubelets().all_pods()) {
    if (model_of(pod.object) == model && plan::leads_standing_group(pod)) leaders.push_back(&pod);
  }
  return leaders;
}

long LoadPromise::queue_of(const plan::SimulatedPod& leader) const {
  const std::string model = model_of(leader.object);
  const auto leaders = standing(model);
  const auto at = std::ranges::find(leaders, &leader);
  const auto all = waiting.find(model);
  if (at == leaders.end() || all == waiting.end()) return 0;
  const long count = std::ssize(leaders);
  return all->second / count + (at - leaders.begin() < all->second % count ? 1 : 0);
}

void LoadPromise::pass_second() {
  for (const auto& [model, all] : waiting) {
    std::map<std::string, long> now;
    for (const plan::SimulatedPod* const leader : standing(model)) {
      now[leader->object["metadata"]["uid"]] = queue_of(*leader);
    }
    held_[model].push_back(std::move(now));
    if (std::ssize(held_[model]) > kOldest) held_[model].pop_front();
  }
}

long LoadPromise::held(const std::string& model) const {
  const auto seconds = held_.find(model);
  if (seconds == held_.end()) return 0;
  long sum = 0;
  for (const auto& [leader, queue] : seconds->second.back()) {
    long least = queue;
    for (const auto& second : seconds->second) {
      const auto at = second.find(leader);
      least = std::min(least, at == second.end() ? 0 : at->second);
    }
    sum += least;
  }
  return sum;
}

void LoadPromise::check(const std::string& who, const std::string& model, double said) {
  const long least = held(model);
  if (said >= static_cast<double>(least)) return;
  world_.breach(who + " says " + std::to_string(std::lround(said)) + " requests of " + model +
                " wait, at least " + std::to_string(least) + " did all the time");
}

}  // namespace dsm::faults
