#include "kernels/cuda/attention_wide_plan.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <utility>

namespace dsm::kernels::cuda {
namespace {

struct Rows {
  WidePast past;
  int rows = 0;
  std::vector<AttentionItem> items;
};
using Key = std::pair<const std::int32_t*, std::int32_t>;

std::map<Key, Rows> rows_of_pasts(const AttentionParams& p,
                                  const std::vector<AttentionItem>& items) {
  std::map<Key, Rows> all;
  for (const AttentionItem& item : items) {
    Rows& rows = all[{item.block_table, item.kv_head}];
    rows.past.block_table = item.block_table;
    rows.past.kv_head = item.kv_head;
    rows.past.positions = std::max(rows.past.positions, last_position(p, item) + 1);
    rows.rows += item.row_end - item.row_begin;
    rows.items.push_back(item);
  }
  return all;
}

}  // namespace

void plan_wide_attention(const AttentionParams& p, std::int64_t most_bytes, AttentionPlan& plan,
                         WideAttentionPlan& wide) {
  wide.tile = wide_tile(p.kv);
  wide.pasts.clear();
  wide.items.clear();
  wide.parts.clear();
  auto all = rows_of_pasts(p, plan.prompts);
  const std::int64_t most_tiles = most_bytes / bytes_of(wide.tile);
  std::erase_if(all, [&](const auto& entry) {
    const Rows& rows = entry.second;
    return rows.rows < kPackedRows || tiles_of(wide.tile, rows.past.positions) > most_tiles;
  });
  std::int64_t tiles = most_tiles;  // of the last part
  for (auto& [key, rows] : all) {
    const int its = tiles_of(wide.tile, rows.past.positions);
    if (tiles + its > most_tiles) {
      wide.parts.push_back({.first_past = static_cast<int>(wide.pasts.size()),
                            .first_item = static_cast<int>(wide.items.size())});
      tiles = 0;
    }
    WideAttentionPart& part = wide.parts.back();
    rows.past.first_tile = static_cast<std::int32_t>(tiles);
    tiles += its;
    wide.pasts.push_back(rows.past);
    ++part.past_count;
    part.most_tiles = std::max(part.most_tiles, its);
    for (const AttentionItem& item : rows.items) {
      wide.items.push_back({item, rows.past.first_tile});
    }
    part.item_count += static_cast<int>(rows.items.size());
  }
  for (const WideAttentionPart& part : wide.parts) {
    const auto begin = wide.items.begin() + part.first_item;
    std::ranges::stable_sort(begin, begin + part.item_count, std::greater{},
                             [&](const WideItem& item) { return last_position(p, item.rows); });
  }
  std::erase_if(plan.prompts, [&](const AttentionItem& item) {
    return all.contains({item.block_table, item.kv_head});
  });
}

}  // namespace dsm::kernels::cuda
