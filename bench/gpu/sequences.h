// A step over several sequences of one length, as attention takes it: for measurements.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace dsm::bench {

// Every sequence has blocks of its own, in order.
struct Sequences {
  std::vector<std::vector<std::int32_t>> tables;  // blocks of each sequence
  std::vector<kernels::TokenPlace> places;        // of all tokens, sequence by sequence
  std::vector<kernels::AttentionItem> items;      // name `tables`: not to be copied
};

// `tokens` of each of `sequences`, at the positions from `start` on; `blocks` of the cache for
// each. `heads` query heads attend to each of `kv_heads`.
Sequences make_sequences(int sequences, int tokens, int start, int blocks, int kv_heads, int heads);

}  // namespace dsm::bench
