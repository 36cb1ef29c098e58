#include "worker/model/kv_room.h"

#include <algorithm>
#include <string>

namespace dsm::model {
namespace {

using engine::kBlockTokens;

// Numbers of tokens are ints in the engine.
constexpr std::int64_t kMostBlocks = (1 << 30) / kBlockTokens;

int blocks_of(int tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}

std::string mebibytes(std::int64_t bytes) {
  return std::to_string(bytes >> 20) + " MiB";
}

engine::Row row(int sequence, int start, int tokens, int logits, int blocks) {
  engine::Row row;
  row.sequence = static_cast<engine::SequenceId>(sequence) + 1;
  row.start = start;
  row.tokens.assign(static_cast<std::size_t>(tokens), 0);
  row.logits = row.choices = logits;
  for (int i = 0; i < blocks_of(start + tokens); ++i) {
    row.block_table.push_back((i + sequence) % blocks);
  }
  return row;
}

}  // namespace

Result<int> kv_blocks_for(const KvRoom& room, const Measured& measured) {
  const std::int64_t left = measured.free - std::max<std::int64_t>(measured.steps, 0) - room.later;
  const auto usable = static_cast<std::int64_t>(static_cast<double>(left) * room.fraction);
  const std::int64_t blocks = std::min(usable / room.bytes_per_block, kMostBlocks);
  // The last token of a request is handed out and never computed, so it needs no slot.
  const std::int64_t needed = blocks_of(room.longest - 1);
  if (blocks >= std::max<std::int64_t>(needed, 1)) return static_cast<int>(blocks);
  return fail(
      ErrorKind::kExhausted,
      "no room for one request of " + std::to_string(room.longest) +
          " tokens: " + mebibytes(measured.free) + " are free beside the weights, steps take " +
          mebibytes(measured.steps) + " of them and what comes later " + mebibytes(room.later) +
          ", and of the rest " + mebibytes(std::max<std::int64_t>(usable, 0)) +
          " may hold the KV cache, which needs " + mebibytes(needed * room.bytes_per_block) +
          ". Lower the longest request (max-model-len) or the tokens of a step "
          "(max-num-batched-tokens), or divide the model over more ranks (tensor-parallel)");
}

int trial_blocks(int max_tokens) {
  return blocks_of(max_tokens) + 1;
}

std::vector<engine::Batch> largest_batches(const KvRoom& room, int max_tokens, int blocks) {
  const int prompt = std::min(max_tokens, room.longest);
  std::vector<engine::Batch> batches(room.longest > prompt ? 3 : 2);
  batches[0].rows.push_back(row(0, room.longest - prompt, prompt, prompt, blocks));
  if (room.longest > prompt) batches[1].rows.push_back(row(0, 0, prompt, prompt, blocks));
  engine::Batch& decode = batches.back();
  for (int i = 0; i < std::min(room.sequences, max_tokens); ++i) {
    decode.rows.push_back(row(i, room.longest - 1, 1, 1, blocks));
  }
  return batches;
}

}  // namespace dsm::model
