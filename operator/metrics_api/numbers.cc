#include "operator/metrics_api/numbers.h"

#include <algorithm>

#include "operator/api/names.h"

namespace dsm::metrics_api {

const std::array<Number, kNumberCount> kNumbers = {{
    {api::kQueueDepthMetric, "Requests of the model that are accepted and wait",
     [](const plan::ModelLoad& l) { return l.queue_depth * 1000; }},
    {api::kQueueAgeMetric, "How long the oldest of them has waited",
     [](const plan::ModelLoad& l) { return l.queue_age_s * 1000; }},
    {api::kRunningMetric, "Requests of the model that are being computed",
     [](const plan::ModelLoad& l) { return l.running * 1000; }},
    {api::kCacheUsageMetric, "Used part of the model's KV caches, 0 to 1",
     [](const plan::ModelLoad& l) { return l.kv_total > 0 ? l.kv_used * 1000 / l.kv_total : 0; }},
}};

const Number* find_number(std::string_view name) {
  const auto found = std::ranges::find(kNumbers, name, &Number::name);
  return found == kNumbers.end() ? nullptr : &*found;
}

std::string number_names() {
  std::string names;
  for (const Number& one : kNumbers) names += (names.empty() ? "" : ", ") + std::string(one.name);
  return names;
}

double value_of(const Number& number, const plan::ModelLoad& load) {
  constexpr double kThousand = 1000;
  return static_cast<double>(number.thousandths(load)) / kThousand;
}

}  // namespace dsm::metrics_api
