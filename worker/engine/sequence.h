// One sequence as the scheduler sees it, from submission to its end. Of the scheduler's thread; its
// blocks die before their pool.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/block_pool.h"
#include "worker/engine/ngram_index.h"
#include "worker/engine/request.h"
#include "worker/engine/siphash.h"

namespace dsm::engine {

inline int blocks_for(int positions) {
  return (positions + kBlockTokens - 1) / kBlockTokens;
}

struct Sequence {
  SequenceId id = 0;
  GenerateRequest request;  // its prompt is moved into `tokens`
  TimePoint arrived;
  TimePoint place;              // arrival, moved by the priority: who is served first
  std::vector<TokenId> tokens;  // prompt, then generated ones
  int prompt_size = 0;
  int computed = 0;  // tokens whose keys and values are in `blocks`
  int cache = -1;    // the KV cache that `blocks` are in; -1: it waits
  std::vector<BlockRef> blocks;
  std::vector<Hash128> keys;  // keys[0] = the salt's root, keys[i + 1] = key of block i
  int offered_blocks = 0;     // full blocks that the cache has been told of
  int cached_prompt_tokens = 0;
  int losses = 0;
  bool admitted_before = false;
  bool in_step = false;
  bool finished = false;
  std::optional<FinishReason> ending;  // it ends with the step that it is in

  // Prompt tokens whose log probability is known; nothing stands before the first.
  int scored = 1;
  std::vector<PositionLogprobs> prompt_logprobs;  // not handed out yet

  NgramIndex ngrams;
  std::vector<TokenId> proposed;  // by the model, to follow `tokens`
  std::vector<TokenId> drafts;    // in the step under way

  int size() const { return static_cast<int>(tokens.size()); }
  int generated() const { return size() - prompt_size; }
  std::span<const TokenId> block_tokens(int block) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(block) * kBlockTokens, kBlockTokens);
  }
  bool wants_prompt_logprobs() const { return request.prompt_logprobs >= 0; }
  // It has prompt tokens that are still to be scored.
  bool scores_prompt() const { return wants_prompt_logprobs() && scored < prompt_size; }
  bool ends_with(TokenId token) const;
};

// Whether `a` is served before `b`.
inline bool before(const Sequence& a, const Sequence& b) {
  return std::tie(a.place, a.id) < std::tie(b.place, b.id);
}

// The row that computes the sequence's next `tokens` tokens, and its drafts when they reach the end
// of its text. Drafts that its constraint does not allow are taken off it. `vocab_size` as in
// SchedulerConfig; `propose`: drafts that the model is asked for.
Row make_row(Sequence& s, int tokens, int vocab_size, int propose);

}  // namespace dsm::engine
