#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <functional>
#include <span>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

// Rows from which on a thread block of prompts has enough to do with what it reads.
constexpr int kFewRows = kPromptRows / 2;
// Blocks of the cache that a thread block may go through whatever the others do: some 50 us.
constexpr std::int64_t kShortWay = 16;

bool follows(const AttentionItem& item, const AttentionItem& first, const AttentionItem& before) {
  return item.block_table == first.block_table && item.kv_head == first.kv_head &&
         item.row_begin == before.row_end && item.row_end - first.row_begin <= kPromptRows;
}

// Whether thread blocks that take so many blocks of the cache one after the other keep the device
// busy: the longest is not much longer than a processor's share.
bool pays(const AttentionParams& p, std::span<const AttentionItem> prompts, int processors) {
  std::int64_t longest = 0;
  std::int64_t all = 0;
  for (const AttentionItem& item : prompts) {
    const std::int64_t blocks = last_position(p, item) / kKvBlock + 1;
    longest = std::max(longest, blocks);
    all += blocks;
  }
  return longest <= kShortWay || longest * processors <= 2 * all;
}

}  // namespace

void plan_attention(const AttentionParams& p, int processors, std::int64_t shared_bytes, bool exact,
                    AttentionPlan& plan) {
  plan.prompts.clear();
  plan.rest.clear();
  const std::span items(p.items, static_cast<std::size_t>(p.item_count));
  if (p.selection.words == nullptr && p.kv.value_dim <= kMaxPromptValueDim &&
      prompt_shared_bytes(p.kv, exact) <= shared_bytes) {
    for (std::size_t begin = 0, end; begin < items.size(); begin = end) {
      end = begin + 1;
      while (end < items.size() && follows(items[end], items[begin], items[end - 1])) ++end;
      AttentionItem joined = items[begin];
      joined.row_end = items[end - 1].row_end;
      if (joined.row_end - joined.row_begin >= kFewRows) {
        plan.prompts.push_back(joined);
      } else {
        plan.rest.insert(plan.rest.end(), items.begin() + static_cast<std::ptrdiff_t>(begin),
                         items.begin() + static_cast<std::ptrdiff_t>(end));
      }
    }
  }
  if (plan.prompts.empty() || !pays(p, plan.prompts, processors)) {
    plan.prompts.clear();
    plan.rest.assign(items.begin(), items.end());
    return;
  }
  std::ranges::stable_sort(plan.prompts, std::greater{},
                           [&](const AttentionItem& item) { return last_position(p, item); });
}

}  // namespace dsm::kernels::cuda
