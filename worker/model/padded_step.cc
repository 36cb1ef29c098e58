#include "worker/model/padded_step.h"

#include <algorithm>
#include <bit>

namespace dsm::model {
namespace {

constexpr int kFewTokens = 16;  // a tile of the matrix products
constexpr int kFewPositions = 1024;

}  // namespace

bool decodes(const engine::Batch& batch) {
  return std::ranges::all_of(batch.rows, [](const engine::Row& row) {
    return row.tokens.size() == 1 && row.logits == 1 && row.adapter == engine::kNoAdapter;
  });
}

device::RepeatKey padded_key(int tokens, int last_position, int max_tokens) {
  const int padded = tokens <= kFewTokens
                         ? static_cast<int>(std::bit_ceil(static_cast<unsigned>(tokens)))
                         : static_cast<int>(kernels::round_up(tokens, kFewTokens));
  return {.tokens = std::min(padded, max_tokens),
          .positions =
              std::max(kFewPositions,
                       static_cast<int>(std::bit_ceil(static_cast<unsigned>(last_position) + 1)))};
}

void PaddedStep::pad(Step& step, const device::RepeatKey& key) {
  const int blocks = key.positions / kernels::kKvBlock;
  const auto width = static_cast<std::size_t>(blocks);
  tables_.assign(static_cast<std::size_t>(key.tokens) * width, 0);
  std::size_t shortest = 0;
  for (std::size_t i = 0; i < step.runs.size(); ++i) {
    TokenRun& run = step.runs[i];
    std::int32_t* table = tables_.data() + i * width;
    std::copy_n(run.block_table, std::min(run.blocks, blocks), table);
    run.block_table = table;
    run.blocks = blocks;
    if (step.places[i].position < step.places[shortest].position) shortest = i;
  }
  for (std::size_t i = step.runs.size(); i < static_cast<std::size_t>(key.tokens); ++i) {
    std::int32_t* table = tables_.data() + i * width;
    std::copy_n(step.runs[shortest].block_table, blocks, table);
    step.add_run(table, blocks);
    step.add_token(step.token_ids[shortest], step.places[shortest].position);
  }
}

}  // namespace dsm::model
