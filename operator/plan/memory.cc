#include "operator/plan/memory.h"

#include <algorithm>

#include "operator/api/quantity.h"
#include "sizing/fit.h"

namespace dsm::plan {
namespace {

constexpr sizing::Words kWords{.memory = "spec.template.resources.limits.memory",
                               .tensor = "spec.parallelism.tensor",
                               .context = "spec.engine.maxModelLen",
                               .kv_tokens = "spec.engine.kvCacheTokens"};

// Bytes of a pod; 0: no limit is said.
std::int64_t limit_of(const api::Template& pod) {
  const auto limit = pod.limits.find("memory");
  if (limit == pod.limits.end()) return 0;
  constexpr double kMost = 1LL << 60;
  return static_cast<std::int64_t>(
      std::min(kMost, api::milli_of(limit->second).value_or(0) / 1000));
}

// What the worker is told, and where it is told nothing, its own defaults.
sizing::Ask ask_of(const api::Spec& spec, const sizing::Shape& shape) {
  const api::Engine& engine = spec.engine;
  sizing::Ask ask{.device = sizing::Device::kCpu,
                  .cut = {.tensor = spec.parallelism.tensor,
                          .drafts = engine.speculation.method == "Mtp",
                          .deterministic = engine.deterministic},
                  .sharing = spec.parallelism.ranks_per_pod,
                  .context = shape.max_positions,
                  .kv_tokens = engine.kv_cache_tokens.value_or(0)};
  if (engine.max_model_len) ask.context = *engine.max_model_len;
  if (engine.max_num_batched_tokens) ask.step.batch_tokens = *engine.max_num_batched_tokens;
  if (engine.max_num_seqs) ask.step.sequences = *engine.max_num_seqs;
  return ask;
}

}  // namespace

std::optional<MemoryCheck> memory_of(const api::Spec& spec) {
  const std::int64_t have = limit_of(spec.pod_template);
  if (spec.sizing.model_config.empty() || have == 0) return std::nullopt;
  const auto shape = sizing::parse_shape(spec.sizing.model_config, "spec.sizing.modelConfig");
  if (!shape) return std::nullopt;
  const sizing::Ask ask = ask_of(spec, *shape);
  if (auto cut = sizing::check_cut(*shape, ask.cut.tensor); !cut) {
    return MemoryCheck{false, "spec.parallelism.tensor: " + cut.error().message};
  }
  const sizing::Fit found = sizing::fit(*shape, ask, have);
  return MemoryCheck{found.fits, sizing::sentence(*shape, ask, found, kWords)};
}

}  // namespace dsm::plan
