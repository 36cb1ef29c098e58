#include "ctl/fit_text.h"

#include <algorithm>

namespace dsm::ctl {
namespace {

using nlohmann::json;

constexpr sizing::Words kWords{.memory = "--memory",
                               .tensor = "--tensor",
                               .context = "--context",
                               .kv_tokens = "--kv-cache-tokens"};

sizing::KvType kv_type(const FitCommand& command) {
  if (command.kv_cache_dtype == "bf16") return sizing::KvType::kBf16;
  return command.kv_cache_dtype == "fp8" ? sizing::KvType::kFp8 : sizing::KvType::kF32;
}

bool deterministic(const FitCommand& command) {
  if (command.loose || command.expert_parallel) return false;
  return command.deterministic || !command.gpu;
}

sizing::Ask ask_of(const sizing::Shape& shape, const FitCommand& command, int tensor) {
  return {.device = command.gpu ? sizing::Device::kGpu : sizing::Device::kCpu,
          .cut = {.tensor = tensor,
                  .drafts = command.drafts,
                  .deterministic = deterministic(command),
                  .expert_parallel = command.expert_parallel,
                  .data_parallel_attention = command.data_parallel_attention,
                  .weight_bits = command.weight_bits},
          .kv_type = kv_type(command),
          .sharing = std::min(command.ranks_per_pod, tensor),
          .context = command.context > 0 ? command.context : shape.max_positions,
          .kv_tokens = command.kv_cache_tokens,
          .step = {.batch_tokens = command.batched_tokens, .sequences = command.sequences}};
}

std::string head_of(const Fitted& f) {
  std::string text = "  " + std::to_string(f.shape.layers) + " layers";
  if (f.shape.experts > 0) text += ", " + std::to_string(f.shape.experts) + " experts";
  if (f.shape.fp8) text += ", FP8";
  return text + ", requests of " + std::to_string(f.ranks.front().ask.context) + " tokens";
}

Node node_of(const sizing::Shape& shape, const FittedRanks& ranks) {
  const std::string name = "tensor " + std::to_string(ranks.tensor) + "  ";
  if (!ranks.mistake.empty()) return {Line{Span{name + ranks.mistake, Colour::kFaint}}, {}};
  const Span verdict =
      ranks.fit.fits ? Span{"fits  ", Colour::kGood} : Span{"no    ", Colour::kBad};
  return {Line{Span{name}, verdict, Span{sizing::sentence(shape, ranks.ask, ranks.fit, kWords)}},
          {}};
}

json to_json(const FittedRanks& ranks) {
  if (!ranks.mistake.empty()) return {{"tensor", ranks.tensor}, {"mistake", ranks.mistake}};
  const sizing::Fit& fit = ranks.fit;
  return {{"tensor", ranks.tensor},
          {"fits", fit.fits},
          {"needBytes", fit.need},
          {"haveBytes", fit.have},
          {"weightBytes", fit.parts.weights},
          {"scratchBytes", fit.parts.scratch},
          {"reserveBytes", fit.parts.reserve},
          {"cacheBytesPerToken", fit.parts.cache_per_token},
          {"maxCacheTokens", fit.max_kv_tokens}};
}

}  // namespace

bool Fitted::any_fits() const {
  return std::ranges::any_of(ranks, [](const FittedRanks& r) { return r.fit.fits; });
}

Fitted fitted(const sizing::Shape& shape, const FitCommand& command, std::int64_t memory) {
  Fitted out{shape, {}};
  for (const int tensor : {1, 2, 4, 8}) {
    if (command.tensor != 0 && command.tensor != tensor) continue;
    FittedRanks ranks{
        .tensor = tensor, .mistake = "", .ask = ask_of(shape, command, tensor), .fit = {}};
    auto cut = sizing::check_cut(shape, tensor);
    if (cut && command.data_parallel_attention) cut = sizing::check_data_parallel_attention(shape);
    if (cut && command.expert_parallel) cut = sizing::check_expert_parallel(shape, tensor);
    if (cut) cut = sizing::check_rounding(shape, ranks.ask.cut.weight_bits);
    if (!cut) {
      ranks.mistake = cut.error().message;
    } else {
      ranks.fit = sizing::fit(shape, ranks.ask, memory);
    }
    out.ranks.push_back(std::move(ranks));
  }
  return out;
}

std::string fit_text(const Fitted& f, const Style& style) {
  Node root{Line{Span{f.shape.model_type}, Span{head_of(f), Colour::kFaint}}, {}};
  for (const FittedRanks& ranks : f.ranks) root.children.push_back(node_of(f.shape, ranks));
  // Sentences are not cut: what to change stands at their ends.
  Style whole = style;
  whole.width = 0;
  return to_text(root, whole);
}

json to_json(const Fitted& f) {
  json all = json::array();
  for (const FittedRanks& ranks : f.ranks) all.push_back(to_json(ranks));
  return {{"modelType", f.shape.model_type},
          {"context", f.ranks.front().ask.context},
          {"tensor", std::move(all)}};
}

}  // namespace dsm::ctl
