#include "operator/metrics_api/series.h"

#include "operator/api/names.h"

namespace dsm::metrics_api {

LoadSeries::LoadSeries(MetricsRegistry& registry) {
  for (std::size_t i = 0; i < kNumberCount; ++i) {
    families_[i] = &prometheus::BuildGauge()
                        .Name(std::string(kNumbers[i].name))
                        .Help(kNumbers[i].help)
                        .Register(registry);
  }
}

void LoadSeries::update(const Loads& loads) {
  const std::lock_guard lock(mutex_);
  auto before = std::exchange(series_, {});
  for (const auto& [ns, models] : loads) {
    for (const plan::ModelLoad& load : models) {
      if (!load.unknown.empty()) continue;
      auto node = before.extract(std::pair(ns, load.model));
      Gauges gauges{};
      for (std::size_t i = 0; i < kNumberCount; ++i) {
        gauges[i] = !node.empty()
                        ? node.mapped()[i]
                        : &families_[i]->Add({{"namespace", ns},
                                              {std::string(api::kMetricModelLabel), load.model}});
        gauges[i]->Set(value_of(kNumbers[i], load));
      }
      series_.emplace(std::pair(ns, load.model), gauges);
    }
  }
  for (const auto& [model, gauges] : before) {
    for (std::size_t i = 0; i < kNumberCount; ++i) families_[i]->Remove(gauges[i]);
  }
}

}  // namespace dsm::metrics_api
