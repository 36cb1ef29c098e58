#include "worker/model/penalties.h"

namespace dsm::model {

using engine::SamplingParams;
using engine::TokenId;

namespace {
constexpr std::int32_t kUnseen = -1;
}  // namespace

bool has_penalties(const SamplingParams& params) {
  return params.presence_penalty != 0 || params.frequency_penalty != 0 ||
         params.repetition_penalty != 1;
}

void Penalties::start(std::size_t vocab) {
  for (const TokenId token : seen_) generated_[static_cast<std::size_t>(token)] = kUnseen;
  seen_.clear();
  generated_.resize(vocab, kUnseen);
}

void Penalties::add(TokenId token, bool generated) {
  const auto at = static_cast<std::size_t>(token);
  if (at >= generated_.size()) return;
  if (generated_[at] == kUnseen) {
    generated_[at] = 0;
    seen_.push_back(token);
  }
  if (generated) ++generated_[at];
}

void Penalties::apply(const SamplingParams& params, std::span<float> logits) const {
  for (const TokenId token : seen_) {
    const auto at = static_cast<std::size_t>(token);
    float& logit = logits[at];
    if (logit > 0) {
      logit /= params.repetition_penalty;
    } else {
      logit *= params.repetition_penalty;
    }
    if (generated_[at] > 0) {
      logit -= params.frequency_penalty * static_cast<float>(generated_[at]);
      logit -= params.presence_penalty;
    }
  }
  for (const engine::LogitBias& b : params.logit_bias) {
    const auto at = static_cast<std::size_t>(b.token);
    if (at < logits.size()) logits[at] += b.bias;
  }
}

}  // namespace dsm::model
