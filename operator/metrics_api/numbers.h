// The numbers of a model that are served, whatever the way there: external.metrics.k8s.io,
// custom.metrics.k8s.io, KEDA, Prometheus.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "operator/plan/load.h"

namespace dsm::metrics_api {

struct Number {
  std::string_view name;
  const char* help;
  long (*thousandths)(const plan::ModelLoad&);
};
inline constexpr std::size_t kNumberCount = 4;
extern const std::array<Number, kNumberCount> kNumbers;

// nullptr: there is no such number.
const Number* find_number(std::string_view name);
// Their names, for an error's message.
std::string number_names();

// Of a load that is known.
double value_of(const Number& number, const plan::ModelLoad& load);

}  // namespace dsm::metrics_api
