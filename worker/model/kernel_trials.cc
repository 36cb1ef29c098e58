#include "worker/model/kernel_trials.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "kernels/cuda/megakernel_ops.h"
#include "kernels/cuda/product_wide.h"

namespace dsm::model {
namespace {

using kernels::DType;

// Rows at which products of many are tried: as of many sequences that are decoded together, and as
// of a prompt. From where pairs of thread blocks may take a product on, what holds for the latter
// holds.
constexpr int kManySequences = 64;
constexpr int kPrompt = 2048;
constexpr int kPromptFrom = kernels::cuda::kPairedFrom;

// Weights of a layer that are several times a second cache in any type.
constexpr std::int64_t kLargeLayer = 150'000'000;

// The type of a layer's matrices.
DType weight_type(const TriedModel& model) {
  if (model.round_weights) return *model.round_weights;
  if (model.config.integers) return model.config.integers->dtype;
  return model.config.quantization ? DType::kF8E4M3 : DType::kBF16;
}

std::vector<TrialStep> prompt(const TriedModel& model) {
  const int tokens = std::min({kPrompt, model.max_batch_tokens, model.config.max_positions});
  if (tokens < kPromptFrom) return {};
  return {{.sequences = 1, .tokens = tokens}};
}

std::vector<TrialStep> many_rows(const TriedModel& model) {
  std::vector<TrialStep> steps;
  const int few = std::min(kManySequences, model.max_batch_tokens);
  if (few > kernels::cuda::kMegakernelRows) steps.push_back({.sequences = few, .tokens = 1});
  for (const TrialStep& step : prompt(model)) steps.push_back(step);
  return steps;
}

// Whether the kernel has the operators of all layers: the indexer's come in between, and so do
// experts that are more than a block can choose from.
bool has_its_layers(const ModelConfig& c) {
  const kernels::GroupExpertsParams groups{.tokens = kernels::cuda::kMegakernelRows,
                                           .experts = c.num_experts,
                                           .top_k = c.experts_per_token};
  return !c.indexer && (c.num_experts == 0 || kernels::cuda::in_megakernel(groups));
}

// Steps of decoding that are recorded, of models that are computed by what the kernel has.
std::vector<TrialStep> decoding(const TriedModel& model) {
  if (model.ranks > 1 || model.drafts || !has_its_layers(model.config) ||
      weight_type(model) != DType::kBF16) {
    return {};
  }
  std::vector<TrialStep> steps{{.sequences = 1, .tokens = 1}};
  const int most = std::min(kernels::cuda::kMegakernelRows, model.max_batch_tokens);
  if (most > 1) steps.push_back({.sequences = most, .tokens = 1});
  return steps;
}

std::vector<TrialStep> steps_of(TrialKind kind, const TriedModel& model) {
  const DType weights = weight_type(model);
  const bool fp8 = weights == DType::kF8E4M3;
  switch (kind) {
    case TrialKind::kMegakernel:
      return decoding(model);
    case TrialKind::kWideIntegers:
      if (model.deterministic || !kernels::is_integer(weights)) return {};
      return many_rows(model);
    case TrialKind::kWideFp8:
      if (model.deterministic || !fp8 || model.fp8_activations) return {};
      return many_rows(model);
    case TrialKind::kPairedFp8:
      if (model.deterministic || !fp8 || !model.fp8_activations) return {};
      return prompt(model);
    case TrialKind::kWideExact:
      if (!model.deterministic || (fp8 && model.fp8_activations)) return {};
      return many_rows(model);
  }
  return {};
}

bool faster(const StepSeen& step) {
  return step.tried_us <= (1 - kWorthwhile) * step.proven_us;
}

// From the largest steps downwards as far as it is faster.
int wide_from(const TrialSeen& seen) {
  int from = 0;
  for (auto step = seen.steps.rbegin(); step != seen.steps.rend() && faster(*step); ++step) {
    from = step->rows >= kPromptFrom ? kPromptFrom : 1;
  }
  return from;
}

// From the smallest upwards.
int megakernel_tokens(const TrialSeen& seen) {
  int tokens = 0;
  for (auto step = seen.steps.begin(); step != seen.steps.end() && faster(*step); ++step) {
    tokens = step->rows;
  }
  return tokens;
}

// False: it is not taken.
bool take(const TrialSeen& seen, device::KernelChoice& kernels) {
  switch (seen.kind) {
    case TrialKind::kWideIntegers:
      kernels.wide_integers_from = wide_from(seen);
      return kernels.wide_integers_from > 0;
    case TrialKind::kWideFp8:
      kernels.wide_fp8_from = wide_from(seen);
      return kernels.wide_fp8_from > 0;
    case TrialKind::kPairedFp8:
      kernels.paired_fp8 = std::ranges::all_of(seen.steps, faster);
      return kernels.paired_fp8;
    case TrialKind::kWideExact:
      kernels.wide_exact_from = wide_from(seen);
      return kernels.wide_exact_from > 0;
    case TrialKind::kMegakernel:
      kernels.megakernel_tokens = megakernel_tokens(seen);
      return kernels.megakernel_tokens > 0;
  }
  return false;
}

std::string rounded(double value, const char* format = "%.0f") {
  char text[32];
  (void)std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string text_of(const TrialSeen& seen, const char* verdict) {
  std::string text = std::string(name_of(seen.kind)) + ":";
  for (const StepSeen& step : seen.steps) {
    text += " " + std::to_string(step.rows) + (step.rows == 1 ? " row " : " rows ") +
            rounded(step.tried_us) + " us, before " + rounded(step.proven_us) + ";";
  }
  return text + " " + verdict;
}

}  // namespace

std::string_view name_of(TrialKind kind) {
  switch (kind) {
    case TrialKind::kWideIntegers:
      return "wide_integers";
    case TrialKind::kWideFp8:
      return "wide_fp8";
    case TrialKind::kPairedFp8:
      return "paired_fp8";
    case TrialKind::kWideExact:
      return "wide_exact";
    case TrialKind::kMegakernel:
      return "megakernel";
  }
  return "";
}

device::KernelChoice kernels_of(TrialKind kind) {
  device::KernelChoice kernels = device::proven_kernels();
  const device::KernelChoice all = device::all_kernels();
  switch (kind) {
    case TrialKind::kWideIntegers:
      kernels.wide_integers_from = all.wide_integers_from;
      break;
    case TrialKind::kWideFp8:
      kernels.wide_fp8_from = all.wide_fp8_from;
      break;
    case TrialKind::kPairedFp8:
      kernels.paired_fp8 = all.paired_fp8;
      break;
    case TrialKind::kWideExact:
      kernels.wide_exact_from = all.wide_exact_from;
      break;
    case TrialKind::kMegakernel:
      kernels.megakernel_tokens = all.megakernel_tokens;
      break;
  }
  return kernels;
}

std::vector<Trial> plan_trials(const TriedModel& model, std::string_view capability) {
  // The only one for which there are kernels that wait for a measurement.
  if (capability != "9.0") return {};
  std::vector<Trial> trials;
  for (const TrialKind kind : kTrialKinds) {
    auto steps = steps_of(kind, model);
    if (!steps.empty()) trials.push_back({kind, std::move(steps)});
  }
  return trials;
}

ModelConfig layers_of(const TriedModel& model) {
  ModelConfig c = model.config;
  const auto share = [&](int& of) { of = std::max(1, of / model.ranks); };
  if (!model.data_parallel_attention) {
    share(c.num_heads);
    share(c.num_kv_heads);
  }
  share(c.intermediate_size);
  if (c.num_experts > 0 && model.expert_parallel) {
    // As many tokens for each of its experts as there are in the whole model.
    share(c.num_experts);
    share(c.experts_per_token);
    c.num_groups = c.topk_groups = 1;
  } else if (c.num_experts > 0) {
    share(c.moe_intermediate_size);
  }
  // Of models with experts one layer without and one with them. Else two where one has to follow
  // the other, or a GPU's second cache could keep one; not more, since a host packs them.
  const std::int64_t mlp = std::int64_t{3} * c.hidden_size * c.intermediate_size;
  c.num_layers = weight_type(model) == DType::kBF16 || mlp < kLargeLayer ? 2 : 1;
  if (c.num_experts > 0) {
    c.first_dense_layers = std::min(c.first_dense_layers, 1);
    c.num_layers = c.first_dense_layers + 1;
    c.moe_layer_freq = 1;
  }
  c.mtp_layers = 0;
  c.vocab_size = c.hidden_size;  // the head is the unit matrix
  c.tied_embeddings = false;
  c.bos_token = -1;
  c.eos_tokens.clear();
  // Of weights that somebody has rounded the same are made by rounding.
  if (kernels::is_integer(weight_type(model))) c.quantization.reset();
  c.integers.reset();
  return c;
}

// Weights that become BF16 are rounded by up to 2^-8, which makes 0.002 of a layer's sums and some
// six times that of the largest of ten million. In FP8 a last digit decides now and then which of
// two neighbours, 2^-3 apart, an activation becomes. A number that is wrong differs by about one.
double bound_of(TrialKind kind) {
  return kind == TrialKind::kWideExact || kind == TrialKind::kMegakernel ? 0 : 1.0 / 16;
}

TrialsJudged judge(std::span<const TrialSeen> seen) {
  TrialsJudged judged;
  for (const TrialSeen& trial : seen) {
    const double bound = bound_of(trial.kind);
    const auto wrong = std::ranges::find_if(
        trial.steps, [&](const StepSeen& step) { return !(step.difference <= bound); });
    const char* verdict = "wrong, not taken";
    if (wrong != trial.steps.end()) {
      judged.warnings.push_back(
          std::string(name_of(trial.kind)) + " computes " + std::to_string(wrong->rows) +
          (wrong->rows == 1 ? " row" : " rows") + " wrong: numbers differ by up to " +
          rounded(wrong->difference, "%.3g") + " of their size, " + rounded(bound, "%.3g") +
          " is what they may");
    } else {
      verdict = take(trial, judged.kernels) ? "taken" : "not taken";
    }
    judged.text += (judged.text.empty() ? "" : ". ") + text_of(trial, verdict);
  }
  return judged;
}

}  // namespace dsm::model
