// Steps of decoding made alike, so that a device can record one and repeat it for others
// (Backend::repeat()): numbers of tokens and lengths of pasts are rounded up to few.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/device/backend.h"
#include "worker/engine/batch.h"
#include "worker/model/step.h"

namespace dsm::model {

// Every row is one token whose logits are wanted, without an adapter.
bool decodes(const engine::Batch& batch);

// Of a step of `tokens` rows, the furthest of them at `last_position`: powers of two up to 16 and
// then multiples of it, but not above `max_tokens`; positions are powers of two from 1,024 on.
device::RepeatKey padded_key(int tokens, int last_position, int max_tokens);

class PaddedStep {
 public:
  // Fills a step of decoding up to the key's tokens, and block tables up to its positions. What is
  // added is the row with the shortest past again: it computes the same bits and writes them to the
  // same places. The step's block tables are then here, until the next call.
  void pad(Step& step, const device::RepeatKey& key);

 private:
  std::vector<std::int32_t> tables_;  // [tokens, blocks]
};

}  // namespace dsm::model
