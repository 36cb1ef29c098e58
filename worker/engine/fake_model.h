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
  // With `echo`, most tokens are the one that stands `echo` positions before them: such a text is
  // easily guessed from its own past. Each of `caches` has `num_blocks`.
  explicit FakeModel(int num_blocks, int vocab = 1000, int echo = 0, int caches = 1)
      : caches_(static_cast<std::size_t>(caches),
                std::vector<TokenId>(static_cast<std::size_t>(num_blocks) * kBlockTokens, -1)),
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
  void forget() {
    for (auto& slots : caches_) slots.assign(slots.size(), -1);
  }

  // The hash of a text, token by token from kStart on.
  static constexpr std::uint64_t kStart = 0x243f6a8885a308d3ULL;
  static std::uint64_t roll(std::uint64_t hash, TokenId t) {
    return (hash ^ static_cast<std::uint32_t>(t)) * 0x9e3779b97f4a7c15ULL + (hash >> 29);
  }
  static std::uint64_t hash_of(std::span<const TokenId> text) {
    std::uint64_t hash = kStart;
    for (const TokenId t : text) hash = roll(hash, t);
    return hash;
  }

  // What the model says after a text, which has this hash.
  static TokenId choose(std::uint64_t hash, std::span<const TokenId> text, int vocab, int echo,
                        const FakeShift& shift) {
    if (!shift.history.empty()) {
      hash = roll(hash, shift.generated_from);
      for (const TokenId t : shift.history) hash = roll(hash, t);
    }
    auto wanted = static_cast<TokenId>((hash >> 20) % static_cast<std::uint64_t>(vocab));
    if (echo > 0 && text.size() >= static_cast<std::size_t>(echo) && (hash >> 50) % 8 != 0) {
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
  static TokenId next(std::span<const TokenId> text, int vocab = 1000, int echo = 0) {
    return choose(hash_of(text), text, vocab, echo, {});
  }
  static std::vector<TokenId> answer(std::vector<TokenId> text, int count, int vocab = 1000,
                                     int echo = 0) {
    const auto prompt = static_cast<std::ptrdiff_t>(text.size());
    for (int i = 0; i < count; ++i) text.push_back(next(text, vocab, echo));
    return {text.begin() + prompt, text.end()};
  }
  // In place of a log probability: a number that only the text before the token decides.
  static PositionLogprobs logprobs(std::uint64_t hash, TokenId chosen) {
    return {.chosen = {chosen, -static_cast<float>((hash >> 40) % 1000)}, .top = {}};
  }

 private:
  Sample sample(const Row& row) {
    const ChoiceContext& c = row.context;
    std::vector<TokenId> text;  // as it stands in the cache
    const int end = row.start + static_cast<int>(row.tokens.size());
    text.reserve(static_cast<std::size_t>(end));
    for (int p = 0; p < end; ++p) text.push_back(slot(row, p));

    Sample sample{.sequence = row.sequence, .tokens = {}};
    std::size_t hashed = 0;
    std::uint64_t hash = kStart;
    const auto hash_before = [&](std::size_t position) {  // positions grow
      while (hashed < position) hash = roll(hash, text[hashed++]);
      return hash;
    };
    const std::size_t first_logits = text.size() - static_cast<std::size_t>(row.logits) + 1;
    for (std::size_t i = 0; i < c.prompt_next.size(); ++i) {
      sample.prompt_logprobs.push_back(logprobs(hash_before(first_logits + i), c.prompt_next[i]));
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
      const auto position =
          static_cast<std::size_t>(row.first_choice()) + static_cast<std::size_t>(i);
      const std::uint64_t here = hash_before(position);
      const TokenId token =
          choose(here, std::span<const TokenId>(text).first(position), vocab_, echo_, shift);
      if (row.sampling.logprobs >= 0) sample.logprobs.push_back(logprobs(here, token));
      return token;
    });
    propose(row, std::move(text), sample);
    return sample;
  }

  // Drafts as of a layer that predicts: mostly what an unshifted model says, sometimes wrong.
  void propose(const Row& row, std::vector<TokenId> text, Sample& sample) const {
    if (row.choices == 0 || row.propose == 0) return;
    text.resize(static_cast<std::size_t>(row.first_choice()));
    text.insert(text.end(), sample.tokens.begin(), sample.tokens.end());
    std::uint64_t hash = hash_of(text);
    for (int i = 0; i < row.propose; ++i) {
      TokenId token = choose(hash, text, vocab_, echo_, {});
      if (hash % 5 == 0) token = (token + 1) % vocab_;
      sample.drafts.push_back(token);
      text.push_back(token);
      hash = roll(hash, token);
    }
  }

  TokenId& slot(const Row& row, int position) {
    const BlockId block = row.block_table.at(static_cast<std::size_t>(position / kBlockTokens));
    return caches_.at(static_cast<std::size_t>(row.rank))
        .at(static_cast<std::size_t>(block) * kBlockTokens +
            static_cast<std::size_t>(position % kBlockTokens));
  }

  std::vector<std::vector<TokenId>> caches_;  // the slots of each
  int vocab_;
  int echo_;
};

}  // namespace dsm::engine
