// A model made of arithmetic, for tests: the next token is a hash of all tokens that stand in the
// KV blocks a row points to. A wrong block table, a block shared wrongly or contents lost and not
// recomputed change the tokens; so do a wrong history, mask or ban.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/batch.h"

namespace dsm::engine {

// What shifts the choice of the token after a text, as in ChoiceContext.
struct FakeShift {
  std::span<const TokenId> history = {};  // of penalties; empty: none
  std::int32_t generated_from = 0;
  std::span<const std::uint32_t> mask = {};
  std::span<const TokenId> banned = {};
};

class FakeModel {
 public:
  // With `echo`, most tokens are the one that stands `echo` positions before: a text that drafts
  // from its own past guess well.
  explicit FakeModel(int num_blocks, int vocab = 1000, int echo = 0)
      : slots_(static_cast<std::size_t>(num_blocks) * kBlockTokens, -1),
        vocab_(vocab),
        echo_(echo) {}

  Samples run(const Batch& batch) {
    for (const Row& row : batch.rows) {
      for (std::size_t i = 0; i < row.tokens.size(); ++i) {
        slot(row, row.start + static_cast<int>(i)) = row.tokens[i];
      }
    }
    Samples samples{.id = batch.id, .samples = {}};
    for (const Row& row : batch.rows) {
      if (row.logits > 0) samples.samples.push_back(sample(row));
    }
    return samples;
  }

  // The KV contents are lost.
  void forget() { slots_.assign(slots_.size(), -1); }

  // What the model says after these tokens, computed from the text alone.
  static TokenId next(std::span<const TokenId> text, int vocab = 1000, int echo = 0,
                      const FakeShift& shift = {}) {
    std::uint64_t state = kStart;
    for (const TokenId t : text) state = mix(state, t);
    if (!shift.history.empty()) {
      state = mix(state, shift.generated_from);
      for (const TokenId t : shift.history) state = mix(state, t);
    }
    TokenId wanted = static_cast<TokenId>((state >> 20) % static_cast<std::uint64_t>(vocab));
    if (echo > 0 && text.size() >= static_cast<std::size_t>(echo) && (state >> 50) % 8 != 0) {
      wanted = text[text.size() - static_cast<std::size_t>(echo)];
    }
    // The next one that may come; a ban gives way where the mask leaves nothing else.
    for (const bool heed_bans : {true, false}) {
      for (TokenId i = 0; i < vocab; ++i) {
        const TokenId token = (wanted + i) % vocab;
        const auto at = static_cast<std::size_t>(token);
        const bool allowed = shift.mask.empty() || (shift.mask[at / 32] >> (at % 32) & 1U) != 0;
        const bool banned = std::ranges::find(shift.banned, token) != shift.banned.end();
        if (allowed && !(heed_bans && banned)) return token;
      }
    }
    return wanted;
  }
  static std::vector<TokenId> answer(std::vector<TokenId> text, int count, int vocab = 1000,
                                     int echo = 0) {
    const auto prompt = static_cast<std::ptrdiff_t>(text.size());
    for (int i = 0; i < count; ++i) text.push_back(next(text, vocab, echo));
    return {text.begin() + prompt, text.end()};
  }
  // As RowSampler does, with a number that only the text decides in place of each probability.
  static PositionLogprobs logprobs(std::span<const TokenId> text, TokenId chosen) {
    std::uint64_t state = kStart;
    for (const TokenId t : text) state = mix(state, t);
    return {.chosen = {chosen, -static_cast<float>((state >> 40) % 1000)}, .top = {}};
  }

 private:
  static constexpr std::uint64_t kStart = 0x243f6a8885a308d3ULL;
  static std::uint64_t mix(std::uint64_t state, TokenId t) {
    return (state ^ static_cast<std::uint32_t>(t)) * 0x9e3779b97f4a7c15ULL + (state >> 29);
  }

  Sample sample(const Row& row) {
    const ChoiceContext& c = row.context;
    std::vector<TokenId> text;  // as it stands in the cache
    for (int p = 0; p < row.start + static_cast<int>(row.tokens.size()); ++p) {
      text.push_back(slot(row, p));
    }
    const auto before = [&](std::int32_t position) {
      return std::span<const TokenId>(text).first(static_cast<std::size_t>(position));
    };
    Sample sample{.sequence = row.sequence, .tokens = {}};
    const std::int32_t first_logits = static_cast<std::int32_t>(text.size()) - row.logits + 1;
    for (std::size_t i = 0; i < c.prompt_next.size(); ++i) {
      sample.prompt_logprobs.push_back(
          logprobs(before(first_logits + static_cast<std::int32_t>(i)), c.prompt_next[i]));
    }
    std::vector<TokenId> history = c.history;
    sample.tokens = verified_tokens(row, [&](std::int32_t i) {
      const auto words = static_cast<std::size_t>(vocab_ + 31) / 32;
      const auto at = static_cast<std::size_t>(i);
      if (i > 0 && !history.empty()) history.push_back(row.drafts()[at - 1]);
      const FakeShift shift{
          .history = history,
          .generated_from = c.generated_from,
          .mask = c.masks.empty() ? std::span<const std::uint32_t>()
                                  : std::span(c.masks).subspan(at * words, words),
          .banned = i < c.banned_choices ? std::span(c.banned) : std::span<const TokenId>()};
      const TokenId token = next(before(row.first_choice() + i), vocab_, echo_, shift);
      if (row.sampling.logprobs >= 0) {
        sample.logprobs.push_back(logprobs(before(row.first_choice() + i), token));
      }
      return token;
    });
    propose(row, text, sample);
    return sample;
  }

  // Drafts as of a layer that predicts: mostly what an unshifted model says, sometimes wrong.
  void propose(const Row& row, std::vector<TokenId> text, Sample& sample) const {
    if (row.choices == 0) return;
    text.resize(static_cast<std::size_t>(row.first_choice()));
    text.insert(text.end(), sample.tokens.begin(), sample.tokens.end());
    for (int i = 0; i < row.propose; ++i) {
      TokenId token = next(text, vocab_, echo_);
      if ((text.size() + static_cast<std::size_t>(token)) % 5 == 0) token = (token + 1) % vocab_;
      sample.drafts.push_back(token);
      text.push_back(token);
    }
  }

  TokenId& slot(const Row& row, int position) {
    const BlockId block = row.block_table.at(static_cast<std::size_t>(position / kBlockTokens));
    return slots_.at(static_cast<std::size_t>(block) * kBlockTokens +
                     static_cast<std::size_t>(position % kBlockTokens));
  }

  std::vector<TokenId> slots_;
  int vocab_;
  int echo_;
};

}  // namespace dsm::engine
