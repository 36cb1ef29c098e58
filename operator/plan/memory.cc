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
constexpr sizing::Words kGpuWords{.memory = "spec.accelerator.memory, by larger GPUs,",
                                  .tensor = kWords.tensor,
                                  .context = kWords.context,
                                  .kv_tokens = kWords.kv_tokens};

std::int64_t bytes_of(const std::string& quantity) {
  constexpr double kMost = 1LL << 60;
  return static_cast<std::int64_t>(std::min(kMost, api::milli_of(quantity).value_or(0) / 1000));
}

// Bytes of a pod, or of one GPU; 0: it is not said.
std::int64_t memory_said(const api::Spec& spec) {
  if (spec.accelerator.gpu()) return bytes_of(spec.accelerator.memory);
  const auto limit = spec.pod_template.limits.find("memory");
  return limit == spec.pod_template.limits.end() ? 0 : bytes_of(limit->second);
}

int weight_bits(const api::Model& model) {
  if (model.quantization == "INT8") return 8;
  return model.quantization == "INT4" ? 4 : 0;
}

sizing::KvType kv_type(const api::Engine& engine) {
  if (engine.kv_cache_dtype == "BF16") return sizing::KvType::kBf16;
  return engine.kv_cache_dtype == "FP8" ? sizing::KvType::kFp8 : sizing::KvType::kF32;
}

// What the worker is told, and where it is told nothing, its own defaults.
sizing::Ask ask_of(const api::Spec& spec, const sizing::Shape& shape) {
  const api::Engine& engine = spec.engine;
  sizing::Ask ask{.device = spec.accelerator.gpu() ? sizing::Device::kGpu : sizing::Device::kCpu,
                  .cut = {.tensor = spec.parallelism.tensor,
                          .drafts = engine.speculation.method == "Mtp",
                          .deterministic = spec.deterministic(),
                          .expert_parallel = engine.expert_parallel,
                          .data_parallel_attention = engine.data_parallel_attention,
                          .weight_bits = weight_bits(spec.model)},
                  .kv_type = kv_type(engine),
                  .sharing = spec.ranks_per_pod(),
                  .context = shape.max_positions,
                  .kv_tokens = engine.kv_cache_tokens.value_or(0)};
  if (engine.max_model_len) ask.context = *engine.max_model_len;
  if (engine.max_num_batched_tokens) ask.step.batch_tokens = *engine.max_num_batched_tokens;
  if (engine.max_num_seqs) ask.step.sequences = *engine.max_num_seqs;
  return ask;
}

// Why ranks cannot share the model so, with the field; empty: they can.
std::string mistake_of_cut(const sizing::Shape& shape, const sizing::WeightCut& cut) {
  if (auto ok = sizing::check_cut(shape, cut.tensor); !ok) {
    return "spec.parallelism.tensor: " + ok.error().message;
  }
  if (cut.data_parallel_attention) {
    if (auto ok = sizing::check_data_parallel_attention(shape); !ok) {
      return "spec.engine.dataParallelAttention: " + ok.error().message + "; remove it";
    }
  }
  if (cut.expert_parallel) {
    if (auto ok = sizing::check_expert_parallel(shape, cut.tensor); !ok) {
      return "spec.engine.expertParallel: " + ok.error().message + "; remove it";
    }
  }
  if (auto ok = sizing::check_rounding(shape, cut.weight_bits); !ok) {
    return "spec.model.quantization: " + ok.error().message + "; use Auto";
  }
  return {};
}

}  // namespace

std::optional<MemoryCheck> memory_of(const api::Spec& spec) {
  const std::int64_t have = memory_said(spec);
  if (spec.sizing.model_config.empty() || have == 0) return std::nullopt;
  const auto shape = sizing::parse_shape(spec.sizing.model_config, "spec.sizing.modelConfig");
  if (!shape) return std::nullopt;
  const sizing::Ask ask = ask_of(spec, *shape);
  if (std::string mistake = mistake_of_cut(*shape, ask.cut); !mistake.empty()) {
    return MemoryCheck{false, std::move(mistake)};
  }
  const sizing::Fit found = sizing::fit(*shape, ask, have);
  return MemoryCheck{found.fits, sizing::sentence(*shape, ask, found,
                                                  spec.accelerator.gpu() ? kGpuWords : kWords)};
}

}  // namespace dsm::plan
