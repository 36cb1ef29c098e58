#include "worker/model/draft_rows.h"

#include <algorithm>

namespace dsm::model {

std::vector<DraftRow> draft_rows(const engine::Batch& batch, const engine::Samples& samples) {
  std::vector<DraftRow> rows;
  rows.reserve(batch.rows.size());
  auto sample = samples.samples.begin();
  for (const engine::Row& row : batch.rows) {
    DraftRow& to = rows.emplace_back();
    to.kept = static_cast<std::int32_t>(row.tokens.size());
    to.next = row.next;
    if (row.logits == 0) continue;
    const engine::Sample& chosen = *sample++;
    if (chosen.tokens.empty()) continue;
    // The row's drafts that were not chosen again are dropped.
    to.kept -= row.choices - static_cast<std::int32_t>(chosen.tokens.size());
    to.next = chosen.tokens.back();
    to.wanted = row.propose;
  }
  return rows;
}

void add_drafts(const engine::Batch& batch, std::span<const DraftRow> rows,
                std::span<const engine::TokenId> drafts, engine::Samples& samples) {
  auto sample = samples.samples.begin();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto mine = drafts.first(static_cast<std::size_t>(rows[i].wanted));
    drafts = drafts.subspan(mine.size());
    if (batch.rows[i].logits == 0) continue;
    sample->drafts.assign(mine.begin(), std::find(mine.begin(), mine.end(), -1));
    ++sample;
  }
}

}  // namespace dsm::model
