#include "worker/model/row_sampler.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "worker/model/sampler.h"

namespace dsm::model {

using engine::ChoiceContext;
using engine::Row;
using engine::Sample;
using engine::TokenId;

RowSampler::RowSampler(std::size_t vocab, std::size_t sampled_vocab)
    : vocab_(vocab), sampled_vocab_(std::min(vocab, sampled_vocab)) {}

Sample RowSampler::choose(const Row& row, std::span<const float> logits) {
  const auto positions = static_cast<std::size_t>(row.logits);
  if (row.choices < 0 || row.choices > row.logits || logits.size() != positions * vocab_ ||
      row.context.prompt_next.size() + static_cast<std::size_t>(row.choices) > positions ||
      (!row.context.masks.empty() &&
       row.context.masks.size() != static_cast<std::size_t>(row.choices) * mask_words())) {
    throw std::logic_error("a row's logits or masks do not fit what it asks for");
  }
  const auto at = [&](std::size_t position) {
    return logits.subspan(position * vocab_, sampled_vocab_);
  };

  Sample sample{.sequence = row.sequence, .tokens = {}};
  for (std::size_t i = 0; row.context.check_finite && i < positions; ++i) {
    const auto finite = [](float logit) { return std::isfinite(logit); };
    sample.all_finite = sample.all_finite && std::ranges::all_of(at(i), finite);
  }
  for (std::size_t i = 0; i < row.context.prompt_next.size(); ++i) {
    sample.prompt_logprobs.push_back(
        logprobs_.read(at(i), row.context.prompt_next[i], row.context.prompt_logprobs));
  }
  const bool penalised = has_penalties(row.sampling);
  penalties_.start(sampled_vocab_);
  if (penalised && row.choices > 0) {
    const auto prompt = static_cast<std::size_t>(row.context.generated_from);
    for (std::size_t i = 0; i < row.context.history.size(); ++i) {
      penalties_.add(row.context.history[i], i >= prompt);
    }
  }
  const std::size_t first = positions - static_cast<std::size_t>(row.choices);
  sample.tokens = engine::verified_tokens(row, [&](std::int32_t choice) {
    const auto i = static_cast<std::size_t>(choice);
    if (penalised && choice > 0) penalties_.add(row.drafts()[i - 1], true);
    const std::span<const float> mine = at(first + i);
    const TokenId token = choose_one(row, mine, i);
    if (row.sampling.logprobs >= 0) {
      sample.logprobs.push_back(logprobs_.read(mine, token, row.sampling.logprobs));
    }
    return token;
  });
  return sample;
}

TokenId RowSampler::choose_one(const Row& row, std::span<const float> logits, std::size_t choice) {
  if (has_penalties(row.sampling) || !row.sampling.logit_bias.empty()) {
    shifted_.assign(logits.begin(), logits.end());
    penalties_.apply(row.sampling, shifted_);
    logits = shifted_;
  }
  return sample(logits, row.sampling, row.first_choice() + static_cast<std::int64_t>(choice),
                allowed(row.context, choice));
}

// The mask of one of the row's choices; empty when every token may come.
std::span<const std::uint32_t> RowSampler::allowed(const ChoiceContext& context,
                                                   std::size_t choice) {
  const std::size_t words = mask_words();
  std::span<const std::uint32_t> mask;
  if (!context.masks.empty()) {
    mask = std::span(context.masks).subspan(choice * words, words);
  }
  if (choice >= static_cast<std::size_t>(std::max(context.banned_choices, 0)) ||
      context.banned.empty()) {
    return mask;
  }
  if (mask.empty()) {
    allowed_.assign(words, ~std::uint32_t{0});
  } else {
    allowed_.assign(mask.begin(), mask.end());
  }
  for (const TokenId token : context.banned) {
    const auto t = static_cast<std::size_t>(token);
    if (t < vocab_) allowed_[t / 32] &= ~(std::uint32_t{1} << (t % 32));
  }
  bool any = false;
  for (std::size_t t = 0; t < sampled_vocab_ && !any; ++t) {
    any = (allowed_[t / 32] >> (t % 32) & 1) != 0;
  }
  return any ? std::span<const std::uint32_t>(allowed_) : mask;
}

}  // namespace dsm::model
