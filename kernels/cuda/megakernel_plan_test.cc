#include "kernels/cuda/megakernel_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(MegakernelPlan, NoBlockHasMoreThanItMust) {
  const auto spans_of_a_block = [](int n, int k) {
    return megakernel_spans_each(spans_of(PackedMatrix{.k = k}), n / kPanel, 132);
  };
  EXPECT_EQ(spans_of_a_block(6144, 4096), 1) << "384 spans: 3 of them, not 4";
  EXPECT_EQ(spans_of_a_block(4096, 4096), 2) << "256 spans: 2 of them either way";
  EXPECT_EQ(spans_of_a_block(28672, 4096), 2) << "1,792 spans: 14 of them";
  EXPECT_EQ(spans_of_a_block(4096, 14336), 7) << "896 spans: 7 of them";
  EXPECT_EQ(spans_of_a_block(128, 1024), 1);
}

float memory[1 << 16];

Touched rows_at(int first, int floats, int step, int rows) {
  return {memory + first, floats * 4, step * 4, rows, true};
}

TEST(MegakernelPlan, ColumnsOfTheSameRowsDoNotMeet) {
  EXPECT_TRUE(meet(rows_at(0, 8, 16, 4), rows_at(4, 8, 16, 4)));
  EXPECT_FALSE(meet(rows_at(0, 8, 16, 4), rows_at(8, 8, 16, 4)));
  EXPECT_FALSE(meet(rows_at(8, 8, 16, 4), rows_at(0, 8, 16, 4)));
  EXPECT_FALSE(meet(rows_at(0, 8, 16, 4), rows_at(64, 8, 16, 4))) << "the one ends before";
  EXPECT_TRUE(meet(rows_at(12, 8, 16, 4), rows_at(0, 5, 16, 4))) << "across the end of a row";
  EXPECT_FALSE(meet(rows_at(12, 8, 16, 4), rows_at(4, 8, 16, 4)));
  EXPECT_FALSE(meet(rows_at(8, 8, 16, 4), rows_at(32, 8, 32, 2))) << "every second row";
  EXPECT_TRUE(meet(rows_at(8, 8, 16, 4), rows_at(40, 8, 32, 2)));
  EXPECT_TRUE(meet(rows_at(8, 8, 16, 4), rows_at(0, 8, 24, 2))) << "nobody can say";
  EXPECT_FALSE(meet(rows_at(8, 8, 16, 4), rows_at(32, 8, 8, 1))) << "one row beside others";
  EXPECT_TRUE(meet(rows_at(8, 8, 16, 4), rows_at(36, 8, 8, 1)));
}

// A step of one token of DeepSeek-V2-Lite on an H100, whose memory is numbers.
constexpr int kBlocks = 132;
constexpr int kHidden = 2048;
constexpr int kHeads = 16;
constexpr int kKey = 576;
constexpr int kLatent = 512;
constexpr int kExperts = 64;
constexpr int kTopK = 6;

float* buffer(int number) {
  return reinterpret_cast<float*>(std::intptr_t{number} << 24);
}
template <class T>
T* list(int number) {
  return reinterpret_cast<T*>(buffer(number));
}
float* const kX = buffer(1);
float* const kNormed = buffer(2);
float* const kLatents = buffer(3);
float* const kQ = buffer(4);
float* const kQuery = buffer(5);
float* const kMixed = buffer(6);
float* const kValues = buffer(7);
float* const kLogits = buffer(8);
float* const kHidden0 = buffer(9);
float* const kSums = buffer(10);
const FewTiles kTiles = {list<FewTile>(11), list<std::int32_t>(12)};

class Step {
 public:
  void product(int n, int k, const float* x, float* y, const float* residual = nullptr,
               bool swiglu = false) {
    product(std::vector<ProductTask>{{.w = weights(n, k), .x = x, .y = y, .rows = 1}},
            {.ldx = k, .ldy = n, .residual = residual, .swiglu = swiglu});
  }
  void product(const std::vector<ProductTask>& tasks, Products p) {
    plan.products(
        {.products = spread(p, tasks.front().w, std::ssize(tasks)), .task = tasks.front()}, tasks);
  }
  void heads(int n, int k, const float* x, int x_step, float* y, int y_step) {
    std::vector<ProductTask> tasks;
    for (int h = 0; h < kHeads; ++h) {
      tasks.push_back({.w = weights(n, k), .x = x + h * x_step, .y = y + h * y_step, .rows = 1});
    }
    product(tasks, {.ldx = kHeads * x_step, .ldy = kHeads * y_step});
  }
  void experts(int n, int k, const float* x, int x_step, float* y, int y_step, bool swiglu) {
    MegakernelProducts of{.task = {.w = weights(n, k), .x = x, .y = y, .rows = 1},
                          .experts = {list<std::byte>(13), 40},
                          .tiles = kTiles,
                          .x_step = x_step,
                          .y_step = y_step};
    of.products =
        spread({.ldx = k, .ldy = y_step, .swiglu = swiglu, .rows = 1 + kTopK}, of.task.w, kTopK);
    if (swiglu) of.products.token = routing().token;
    if (swiglu) of.products.weight = routing().weight;
    plan.products(of, {});
  }
  void norm(int products = 0) {
    plan.norm({.x = kX,
               .ldx = kHidden,
               .y = kNormed,
               .ldy = kHidden,
               .rows = 1,
               .width = kHidden,
               .for_products = products});
  }
  void attention() {
    norm(2);
    product(kKey, kHidden, kNormed, kLatents);
    const KvLayer kv{.keys = buffer(20), .key_dim = kKey, .value_dim = kLatent};
    plan.add(kv_write_op({.kv_a = kLatents, .ld = kKey, .kv = kv, .rope = {}, .tokens = 1}));
    product(kHeads * 192, kHidden, kNormed, kQ);
    heads(kLatent, 128, kQ, 192, kQuery, kKey);
    plan.add(rope_query_op({.q = kQ,
                            .ldq = kHeads * 192,
                            .head_dim = 192,
                            .from = 128,
                            .query = kQuery,
                            .query_dim = kKey,
                            .at = kLatent,
                            .rope = {.pairs = 32},
                            .tokens = 1,
                            .heads = kHeads}));
    AttentionLaunch launch{.params = {.query = kQuery, .out = kMixed, .heads = kHeads, .kv = kv},
                           .items = 1,
                           .item_rows = kHeads,
                           .splits = 17,
                           .partial = buffer(21),
                           .best = buffer(22),
                           .total = buffer(23)};
    plan.add(splits_op(launch));
    plan.add(merge_op(launch));
    heads(128, kLatent, kMixed, kLatent, kValues, 128);
    product(kHidden, kHeads * 128, kValues, kX, kX);
  }
  void mlp() {
    norm();
    product(kExperts, kHidden, kNormed, kLogits);
    plan.route({.logits = kLogits,
                .ld = kExperts,
                .tokens = 1,
                .experts = kExperts,
                .top_k = kTopK,
                .chosen = list<std::int32_t>(14),
                .weights = buffer(15)});
    EXPECT_TRUE(plan.group(routing(), kTiles));
    product(5632, kHidden, kNormed, kHidden0, nullptr, true);
    experts(2816, kHidden, kNormed, 0, kHidden0, 2816, true);
    product(kHidden, 2816, kHidden0, kSums);
    experts(kHidden, 1408, kHidden0, 2816, kSums, kHidden, false);
    plan.add(combine_op({.x = kSums,
                         .each = 1 + kTopK,
                         .slots = routing().slot,
                         .residual = kX,
                         .y = kX,
                         .ldy = kHidden,
                         .tokens = 1,
                         .n = kHidden}));
  }

  MegakernelPlan plan;

 private:
  static PackedMatrix weights(int n, int k) {
    return {.data = buffer(16), .dtype = DType::kBF16, .n = n, .k = k};
  }
  // Sums in memory of their own.
  Products spread(Products p, const PackedMatrix& w, std::int64_t tiles) {
    p.tile_count = static_cast<int>(tiles);
    p.tile_rows = kMegakernelRows;
    p.panels = panels_of(w);
    p.spans = spans_of(w);
    p.spans_each = megakernel_spans_each(p.spans, p.panels * p.tile_count, kBlocks);
    p.rows = std::max<std::int64_t>(p.rows, tiles);
    p.ld_partial = std::int64_t{p.panels} * kPanel;
    if (p.spans_each < p.spans) {
      p.partial = buffer(30 + 2 * products_);
      p.met = list<std::uint32_t>(31 + 2 * products_);
      products_ = (products_ + 1) % 3;
    }
    return p;
  }
  static GroupExpertsParams routing() {
    return {.chosen = list<std::int32_t>(14),
            .weights = buffer(15),
            .tokens = 1,
            .experts = kExperts,
            .top_k = kTopK,
            .token = list<std::int32_t>(17),
            .weight = buffer(18),
            .groups = list<Group>(19),
            .slot = list<std::int32_t>(24)};
  }
  int products_ = 0;
};

// Kinds of each phase.
std::vector<std::vector<MegakernelKind>> phases(const std::vector<MegakernelOp>& ops) {
  std::vector<std::vector<MegakernelKind>> all;
  for (const MegakernelOp& op : ops) {
    if (op.waits || all.empty()) all.emplace_back();
    all.back().push_back(op.kind);
  }
  return all;
}

constexpr auto kProducts = MegakernelKind::kProducts;

TEST(MegakernelPlan, WhatDoesNotDependOnEachOtherIsSideBySide) {
  Step step;
  step.attention();
  EXPECT_THAT(phases(step.plan.take(kBlocks)),
              ElementsAre(ElementsAre(kProducts, kProducts),  // latents, queries: with their norm
                          ElementsAre(kProducts, MegakernelKind::kKvWrite,  // keys of heads
                                      MegakernelKind::kRopeQuery),
                          ElementsAre(MegakernelKind::kAttentionSplits),
                          ElementsAre(MegakernelKind::kAttentionMerge), ElementsAre(kProducts),
                          ElementsAre(kProducts)));
  EXPECT_TRUE(step.plan.empty());
  step.mlp();
  EXPECT_THAT(phases(step.plan.take(kBlocks)),
              ElementsAre(ElementsAre(kProducts, kProducts,  // router, shared expert
                                      MegakernelKind::kNorm),
                          ElementsAre(kProducts, MegakernelKind::kRoute), ElementsAre(kProducts),
                          ElementsAre(kProducts), ElementsAre(MegakernelKind::kCombine)));
}

TEST(MegakernelPlan, ANormIsMadeByItsProductsWhileItStands) {
  Step step;
  step.mlp();
  const auto ops = step.plan.take(kBlocks);
  std::vector<int> norms;
  for (const MegakernelOp& op : ops) {
    if (op.kind == kProducts) norms.push_back(op.get<MegakernelProducts>().norm_number);
  }
  EXPECT_THAT(norms, ElementsAre(1, 1, 0, 1, 0)) << "router, shared expert, down, experts, down";
  step.norm(1);
  step.product(kHidden, kHidden, kValues, kX, kX);
  step.product(kHidden, kHidden, kNormed, kQ);
  const auto written = step.plan.take(kBlocks);
  EXPECT_THAT(phases(written),
              ElementsAre(ElementsAre(MegakernelKind::kNorm), ElementsAre(kProducts, kProducts)));
  EXPECT_EQ(written[2].get<MegakernelProducts>().norm.rows, 0) << "of the x before";
}

TEST(MegakernelPlan, WeightsAreAskedForPhasesAhead) {
  Step step;
  step.attention();
  step.mlp();
  step.attention();
  const auto ops = step.plan.take(kBlocks);
  // Shapes of what is asked for with each phase.
  std::vector<std::vector<int>> asked;
  for (const MegakernelOp& op : ops) {
    if (!op.waits) continue;
    asked.emplace_back();
    for (const AskedWeights& weights : op.asks) {
      if (weights.units > 0) asked.back().push_back(weights.w.n);
    }
  }
  ASSERT_GE(asked.size(), 11U);
  EXPECT_THAT(asked[0], ElementsAre(kLatent, 128)) << "both of heads";
  EXPECT_THAT(asked[1], ElementsAre(kHidden, kExperts)) << "splits: output, router";
  EXPECT_THAT(asked[2], ElementsAre(5632)) << "the shared expert's";
  EXPECT_THAT(asked[4], IsEmpty()) << "these are much";
  EXPECT_THAT(asked[5], ElementsAre(kHidden)) << "its down";
  EXPECT_THAT(asked[6], IsEmpty()) << "nobody knows the experts yet";
  EXPECT_THAT(asked[7], IsEmpty()) << "nor here";
  EXPECT_THAT(asked[8], ElementsAre(kHidden, kKey)) << "their down, and the next layer's latents";
  EXPECT_THAT(asked[9], ElementsAre(kHeads * 192, kLatent)) << "its queries, and of heads";
  for (const MegakernelOp& op : ops) {
    if (op.kind != kProducts) continue;
    const auto of = op.get<MegakernelProducts>();
    EXPECT_EQ(op.known_early, of.tiles.tiles == nullptr || of.task.w.n == kHidden);
  }
}

// Blocks that have a part of the first have none of the second.
TEST(MegakernelPlan, OperatorsSideBySideBeginWithOtherBlocks) {
  Step step;
  step.product(640, kHidden, kX, kQ);
  step.product(kKey, kHidden, kX, kLatents);
  auto ops = step.plan.take(kBlocks);
  ASSERT_EQ(ops.size(), 2U);
  EXPECT_EQ(ops[0].units, 20);
  EXPECT_EQ(ops[1].first, 20);
  EXPECT_FALSE(ops[1].waits);
  step.product(kHidden, kHidden, kX, kQ);
  step.product(kKey, kHidden, kQ, kLatents);
  ops = step.plan.take(kBlocks);
  EXPECT_EQ(ops[1].first, 0);
  EXPECT_TRUE(ops[1].waits);
}

TEST(MegakernelPlan, HasOnlyWhatItsBlocksHaveRoomFor) {
  Products launch{.tile_count = 1, .tile_rows = 16};
  ProductTask task{.w = {.dtype = DType::kBF16, .n = 64, .k = 64}, .rows = 16};
  const auto has = [&](const std::vector<ProductTask>& tasks) {
    launch.tile_count = static_cast<int>(tasks.size());
    return in_megakernel(launch, tasks);
  };
  EXPECT_TRUE(has({task}));
  EXPECT_TRUE(has({task, task}));
  ProductTask other = task;
  other.w.n = 128;
  EXPECT_FALSE(has({task, other}));
  other.w = {.dtype = DType::kInt8, .n = 64, .k = 64};
  EXPECT_FALSE(has({other}));
  EXPECT_FALSE(has(std::vector<ProductTask>(kMegakernelTasks + 1, task)));
  launch.tile_rows = 32;
  EXPECT_FALSE(has({task}));
  AttentionLaunch attention;
  attention.item_rows = 16;
  attention.params.kv.key_dim = 576;
  EXPECT_TRUE(in_megakernel(attention));
  attention.params.kv.key_dim = 592;
  EXPECT_FALSE(in_megakernel(attention));
  attention.params.kv.key_dim = 128;
  attention.item_rows = 17;
  EXPECT_FALSE(in_megakernel(attention));
  EXPECT_FALSE(in_megakernel(RmsNormParams{.width = 30}));
  EXPECT_TRUE(in_megakernel(RouterParams{.tokens = 16, .experts = 256}));
  EXPECT_FALSE(in_megakernel(RouterParams{.tokens = 16, .experts = 257}));
  EXPECT_TRUE(in_megakernel(GroupExpertsParams{.tokens = 16, .experts = 256, .top_k = 16}));
  EXPECT_FALSE(in_megakernel(GroupExpertsParams{.tokens = 16, .experts = 256, .top_k = 17}));
}

}  // namespace
}  // namespace dsm::kernels::cuda
