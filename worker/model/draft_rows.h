// Between the engine's rows and RankModel::draft, on rank 0: what was chosen becomes what the draft
// layer is told, and its drafts go into the samples. Pure.
#pragma once

#include <span>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/model/draft_row.h"

namespace dsm::model {

// One for each row of the batch. A row that chooses nothing is in the middle of its prompt: all its
// tokens stand, what follows is the prompt's next token, and nothing is drafted after it.
std::vector<DraftRow> draft_rows(const engine::Batch& batch, const engine::Samples& samples);

// `drafts` as RankModel::draft gives them for `rows`.
void add_drafts(const engine::Batch& batch, std::span<const DraftRow> rows,
                std::span<const engine::TokenId> drafts, engine::Samples& samples);

}  // namespace dsm::model
