// A model made of arithmetic, for tests: the next token is a hash of all tokens that stand in the
// KV blocks a row points to. A wrong block table, a block shared wrongly or contents lost and not
// recomputed change the tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/batch.h"

namespace dsm::engine {

class FakeModel {
 public:
  explicit FakeModel(int num_blocks, int vocab = 1000)
      : slots_(static_cast<std::size_t>(num_blocks) * kBlockTokens, -1), vocab_(vocab) {}

  Samples run(const Batch& batch) {
    for (const Row& row : batch.rows) {
      for (std::size_t i = 0; i < row.tokens.size(); ++i) {
        slot(row, row.start + static_cast<int>(i)) = row.tokens[i];
      }
    }
    Samples samples{.id = batch.id, .samples = {}};
    for (const Row& row : batch.rows) {
      if (row.wants_sample) {
        const int end = row.start + static_cast<int>(row.tokens.size());
        std::uint64_t state = kStart;
        for (int p = 0; p < end; ++p) {
          state = mix(state, slot(row, p));
        }
        samples.samples.push_back({.sequence = row.sequence, .token = token(state, vocab_)});
      }
    }
    return samples;
  }

  // The KV contents are lost.
  void forget() { slots_.assign(slots_.size(), -1); }

  // What the model says after these tokens, computed from the text alone.
  static TokenId next(std::span<const TokenId> text, int vocab = 1000) {
    std::uint64_t state = kStart;
    for (const TokenId t : text) {
      state = mix(state, t);
    }
    return token(state, vocab);
  }
  static std::vector<TokenId> answer(std::vector<TokenId> text, int count, int vocab = 1000) {
    const auto prompt = static_cast<std::ptrdiff_t>(text.size());
    for (int i = 0; i < count; ++i) {
      text.push_back(next(text, vocab));
    }
    return {text.begin() + prompt, text.end()};
  }

 private:
  static constexpr std::uint64_t kStart = 0x243f6a8885a308d3ULL;
  static std::uint64_t mix(std::uint64_t state, TokenId t) {
    return (state ^ static_cast<std::uint32_t>(t)) * 0x9e3779b97f4a7c15ULL + (state >> 29);
  }
  static TokenId token(std::uint64_t state, int vocab) {
    return static_cast<TokenId>((state >> 20) % static_cast<std::uint64_t>(vocab));
  }

  TokenId& slot(const Row& row, int position) {
    const BlockId block = row.block_table.at(static_cast<std::size_t>(position / kBlockTokens));
    return slots_.at(static_cast<std::size_t>(block) * kBlockTokens +
                     static_cast<std::size_t>(position % kBlockTokens));
  }

  std::vector<TokenId> slots_;
  int vocab_;
};

}  // namespace dsm::engine
