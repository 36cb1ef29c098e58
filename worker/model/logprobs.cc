#include "worker/model/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsm::model {

using engine::PositionLogprobs;
using engine::TokenId;
using engine::TokenLogprob;

PositionLogprobs LogprobReader::read(std::span<const float> logits, TokenId chosen, int top) {
  float highest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) highest = std::max(highest, logit);  // passes over NaN
  double total = 0;
  for (const float logit : logits) {
    if (!std::isnan(logit)) total += std::exp(static_cast<double>(logit) - highest);
  }
  const double log_total = std::log(total);
  const auto logprob = [&](float logit) {
    const double value = static_cast<double>(logit) - highest - log_total;
    // Also of a value that is not a number, or where all are infinite.
    return value >= engine::kLeastLogprob ? static_cast<float>(value) : engine::kLeastLogprob;
  };

  PositionLogprobs position;
  const auto at = static_cast<std::size_t>(chosen);
  position.chosen = {chosen, at < logits.size() ? logprob(logits[at]) : engine::kLeastLogprob};
  if (top <= 0) return position;
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i])) candidates_.push_back({static_cast<TokenId>(i), logits[i]});
  }
  const auto count = std::min(candidates_.size(), static_cast<std::size_t>(top));
  const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(candidates_.begin(), end, candidates_.end(),
                    [](const TokenLogprob& a, const TokenLogprob& b) {
                      return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
                    });
  position.top.assign(candidates_.begin(), end);
  for (TokenLogprob& t : position.top) t.logprob = logprob(t.logprob);
  return position;
}

}  // namespace dsm::model
