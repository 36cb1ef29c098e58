// How many KV blocks a rank has room for on a device whose memory is its own: what is left beside
// the weights when the largest steps have run and are recorded, times a fraction. Nothing grows
// afterwards but the records of other steps (Backend::repeat()), of some MiB each: they fit into
// what the fraction leaves.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"

namespace dsm::model {

struct KvRoom {
  std::int64_t bytes_per_block = 0;          // of this rank
  int longest = 0;                           // tokens of the longest request, of which one must fit
  int sequences = 1;                         // of a step, at most
  double fraction = 0.9;                     // of what is left
  std::function<std::int64_t()> free_bytes;  // of the device's memory, now
};

struct Measured {
  std::int64_t free = 0;   // bytes beside the weights
  std::int64_t steps = 0;  // of them, what steps take
};

// kExhausted, with the numbers and what to change, when not even the longest request fits.
Result<int> kv_blocks_for(const KvRoom& room, const Measured& measured);

// Blocks of the cache with which steps are tried: those that the tokens of one are written to.
int trial_blocks(int max_tokens);
// The steps that take most memory: as many tokens of one sequence as a step may have, all of whose
// logits are wanted, and as many sequences. Both at the end of the longest request. A table names
// the trial's few blocks over and over.
std::vector<engine::Batch> largest_batches(const KvRoom& room, int max_tokens, int blocks);

}  // namespace dsm::model
