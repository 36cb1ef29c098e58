// How many KV blocks a rank has room for on a device whose memory is its own: what is left beside
// the weights when the largest steps have run and are recorded, less what is known to be taken
// later, times a fraction. The steps run on a trial of the rank, with few blocks and the scratch
// memory of many; when the cache is there they run once more, so that no later step takes memory,
// but the records of steps (Backend::repeat()), which are among what is known.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"

namespace dsm::model {

struct KvRoom {
  std::int64_t bytes_per_block = 0;  // of this rank
  int longest = 0;                   // tokens of the longest request, of which one must fit
  int sequences = 1;                 // of a step, at most
  double fraction = 0.9;             // of what is left
  // Bytes that are taken later by others than steps: records of steps, collectives between ranks.
  std::int64_t later = 0;
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
// logits are wanted, at the end of the longest request and, where that is elsewhere, at its begin,
// for what is done with short pasts alone; and as many sequences at the end of theirs. A table
// names the few blocks over and over.
std::vector<engine::Batch> largest_batches(const KvRoom& room, int max_tokens, int blocks);

}  // namespace dsm::model
