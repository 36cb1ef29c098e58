#include "kernels/cuda/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kProcessors = 4;
constexpr std::int64_t kSharedBytes = 227 << 10;

// Sequences whose tokens are in a batch side by side, with items as the model makes them.
struct Batch {
  struct Sequence {
    int past;
    int tokens;
  };
  std::vector<TokenPlace> places;
  std::vector<std::int32_t> tables = std::vector<std::int32_t>(16);  // one for each sequence
  std::vector<AttentionItem> items;
  AttentionParams params;

  explicit Batch(const std::vector<Sequence>& sequences, int heads = 4, int kv_heads = 2) {
    params.heads = heads;
    params.kv = {.heads = kv_heads, .key_dim = 128, .value_dim = 128};
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const auto begin = static_cast<int>(places.size()) * heads;
      for (int t = 0; t < sequences[s].tokens; ++t) places.push_back({sequences[s].past + t, 0});
      const auto end = static_cast<int>(places.size()) * heads;
      for (int h = 0; h < kv_heads; ++h) {
        for (int at = begin; at < end; at += kAttentionRows) {
          items.push_back({at, std::min(end, at + kAttentionRows), &tables[s], h});
        }
      }
    }
    params.places = places.data();
    params.items = items.data();
    params.item_count = static_cast<int>(items.size());
  }

  AttentionPlan plan(int processors = kProcessors, std::int64_t shared_bytes = kSharedBytes,
                     bool exact = true) const {
    AttentionPlan plan;
    plan_attention(params, processors, shared_bytes, exact, plan);
    return plan;
  }
};

// (token, KV head) pairs that items cover, each once.
void expect_cover(const Batch& batch, const AttentionPlan& plan) {
  std::vector<int> seen(batch.places.size() * static_cast<std::size_t>(batch.params.heads) *
                        static_cast<std::size_t>(batch.params.kv.heads));
  for (const auto* items : {&plan.prompts, &plan.rest}) {
    for (const AttentionItem& item : *items) {
      for (int row = item.row_begin; row < item.row_end; ++row) {
        ++seen[static_cast<std::size_t>(row * batch.params.kv.heads + item.kv_head)];
      }
    }
  }
  EXPECT_EQ(std::ranges::count(seen, 1), std::ssize(seen));
}

TEST(AttentionPlan, RowsOfAPromptGoTogetherThoseThatSeeMostFirst) {
  const Batch batch({{0, 100}});
  const AttentionPlan plan = batch.plan();
  // 400 rows of each of 2 heads: 128, 128, 128 and 16, which are too few.
  ASSERT_EQ(plan.prompts.size(), 6U);
  EXPECT_EQ(plan.rest.size(), 2U);
  for (std::size_t i = 0; i < plan.prompts.size(); ++i) {
    EXPECT_EQ(plan.prompts[i].row_end - plan.prompts[i].row_begin, kPromptRows);
    if (i > 0) {
      EXPECT_LE(last_position(batch.params, plan.prompts[i]),
                last_position(batch.params, plan.prompts[i - 1]));
    }
  }
  expect_cover(batch, plan);
}

TEST(AttentionPlan, SequencesAreNotJoined) {
  const Batch batch({{70, 1}, {0, 20}, {0, 20}, {200, 1}});
  const AttentionPlan plan = batch.plan();
  ASSERT_EQ(plan.prompts.size(), 4U);
  for (const AttentionItem& item : plan.prompts) EXPECT_EQ(item.row_end - item.row_begin, 80);
  EXPECT_EQ(plan.rest.size(), 4U);
  expect_cover(batch, plan);
}

TEST(AttentionPlan, DecodingIsNoPrompt) {
  const Batch batch(std::vector<Batch::Sequence>(16, {1000, 1}));
  const AttentionPlan plan = batch.plan();
  EXPECT_TRUE(plan.prompts.empty());
  EXPECT_EQ(plan.rest.size(), batch.items.size());
}

TEST(AttentionPlan, AFewRowsOverALongPastAreLeftToSplits) {
  const Batch batch({{10000, 32}});
  EXPECT_TRUE(batch.plan(132).prompts.empty());
  EXPECT_EQ(batch.plan(132).rest.size(), batch.items.size());
  EXPECT_EQ(batch.plan(4).prompts.size(), 2U);  // they keep so few busy
  const Batch whole({{0, 2048}}, 4, 8);
  EXPECT_EQ(whole.plan(132).prompts.size(), 512U);
}

TEST(AttentionPlan, WhatTheKernelDoesNotTakeIsLeftToSplits) {
  Batch wide({{0, 100}});
  wide.params.kv.value_dim = 512;
  EXPECT_TRUE(wide.plan().prompts.empty());
  Batch selects({{0, 100}});
  std::uint64_t words = 0;
  selects.params.selection.words = &words;
  EXPECT_TRUE(selects.plan().prompts.empty());
  // An A100's thread block has 163 KiB: room for keys of 128 values, with two terms of 192 not.
  Batch keys({{0, 100}});
  EXPECT_FALSE(keys.plan(kProcessors, 163 << 10).prompts.empty());
  keys.params.kv.key_dim = 192;
  EXPECT_TRUE(keys.plan(kProcessors, 163 << 10).prompts.empty());
  EXPECT_FALSE(keys.plan(kProcessors, 163 << 10, false).prompts.empty());
  EXPECT_FALSE(keys.plan().prompts.empty());
}

}  // namespace
}  // namespace dsm::kernels::cuda
