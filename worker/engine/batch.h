// What one step of the model computes: the value that the scheduler hands to the Runner, and that
// the leader sends to the other ranks. No pointers, no device: it can be serialised and compared.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/ids.h"
#include "worker/engine/sampling_params.h"

namespace dsm::engine {

// Tokens per KV block. A block holds this many consecutive positions of one sequence, in every
// layer.
inline constexpr int kBlockTokens = 64;

// One sequence's work in a step: tokens[i] stands at position start + i. Its keys and values are
// written to slot (block_table[p / kBlockTokens], p % kBlockTokens) for position p before attention
// reads positions 0..p.
struct Row {
  SequenceId sequence = 0;
  std::int32_t start = 0;            // tokens of this sequence already in the KV cache
  std::vector<TokenId> tokens;       // at least one
  std::vector<BlockId> block_table;  // covers positions 0 .. start + tokens.size() - 1
  bool wants_sample = false;         // true when the last token's logits choose the next token
  SamplingParams sampling;

  bool operator==(const Row&) const;
};

struct Batch {
  StepId id = 0;
  std::vector<Row> rows;

  std::size_t token_count() const;
  bool operator==(const Batch&) const;
};

// The token chosen for a row with wants_sample.
struct Sample {
  SequenceId sequence = 0;
  TokenId token = 0;
};

struct Samples {
  StepId id = 0;
  // In the order of the batch's rows, rows without wants_sample left out.
  std::vector<Sample> samples;
};

}  // namespace dsm::engine
