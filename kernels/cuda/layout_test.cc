// How products are laid out over thread blocks: who takes them, and how inputs, rows and slots are
// divided.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

// The time of a weight in bytes of memory: what is read and written besides, and two operations a
// row at a share of the peak.
TEST(CudaLayoutTest, ALibrarysProductPaysFromSomeRowsOn) {
  const std::pair<int, double> gpus[] = {{8, 312 / 2.04}, {9, 989 / 3.35}, {10, 2250 / 8.0}};
  for (const auto& [major, peak] : gpus) {
    const int rows = library_rows(major, DType::kBF16);
    const auto ours = [&](int r) { return 2 * r / (0.045 * peak); };
    const auto library = [&](int r) { return 4 + 2 * r / (0.5 * peak); };
    EXPECT_LE(library(rows), ours(rows)) << major;
    EXPECT_GT(library(rows - 1), ours(rows - 1)) << major;
  }
  EXPECT_EQ(library_rows(9, DType::kBF16), 30);
  EXPECT_GT(library_rows(9, DType::kF8E4M3), 64) << "as measured";
}

TEST(CudaLayoutTest, ALibrarysPartsHoldEveryRowAndPanelOnce) {
  const ProductTask task{.w = {.n = 500, .k = 100}, .rows = 70};  // 8 panels of 128 inputs
  for (const std::int64_t bytes : {1, 50'000, 1'000'000}) {
    std::vector<ProductPart> parts;
    library_parts(task, bytes, parts);
    std::vector<int> seen(std::size_t{70} * 8);
    for (const ProductPart& part : parts) {
      EXPECT_LE(part.panels > 1 ? std::int64_t{part.panels} * kPanel * 128 * 2 : 0, bytes);
      EXPECT_LE(part.rows > 1 ? std::int64_t{part.rows} * part.panels * kPanel * 4 : 0, bytes);
      for (int row = part.row; row < part.row + part.rows; ++row) {
        for (int panel = part.panel; panel < part.panel + part.panels; ++panel) {
          ++seen[static_cast<std::size_t>(row * 8 + panel)];
        }
      }
    }
    EXPECT_EQ(std::ranges::count(seen, 1), 70 * 8);
    EXPECT_EQ(parts.size() == 1, bytes == 1'000'000);
  }
}

TEST(CudaLayoutTest, APartsPointersAreWhereItBegins) {
  std::vector<float> floats(100'000);
  std::vector<std::uint8_t> values(100'000);
  const std::vector<std::int32_t> tokens(20);
  const float* at = floats.data();
  const ProductPart part{.row = 3, .rows = 4, .panel = 1, .panels = 2};
  Products launch{.ldx = 130, .ldy = 200, .bias = at, .residual = at, .rows = 9};
  ProductTask task{
      .w = {.data = values.data(), .dtype = DType::kF8E4M3, .n = 150, .k = 130, .scales = at},
      .x = at,
      .y = floats.data(),
      .first_row = 5,
      .rows = 9};
  ProductTask gated = task;
  take_part(part, launch, task);
  EXPECT_EQ(task.w.data, values.data() + 130 * 64);
  EXPECT_EQ(task.w.scales, at + 2 * 64);
  EXPECT_EQ(task.w.n, 86);
  EXPECT_EQ(task.x, at + 3 * 130);
  EXPECT_EQ(task.y, at + 3 * 200 + 64);
  EXPECT_EQ(launch.bias, at + 64);
  EXPECT_EQ(launch.residual, at + 3 * 200 + 64);
  EXPECT_EQ(task.first_row, 0);
  EXPECT_EQ(task.rows, 4);
  EXPECT_EQ(launch.rows, 4);

  gated.start = at;
  Products gate{.token = tokens.data(),
                .ldx = 130,
                .ldy = 100,
                .swiglu = true,
                .lds = 192,
                .weight = at,
                .rows = 14};
  take_part(part, gate, gated);
  EXPECT_EQ(gate.token, tokens.data() + 8);
  EXPECT_EQ(gate.weight, at + 8);
  EXPECT_EQ(gated.x, at);
  EXPECT_EQ(gated.y, at + 3 * 100 + 32);
  EXPECT_EQ(gated.start, at + 3 * 192 + 64);
}

TEST(CudaLayoutTest, RowsInFp8AreTakenWhereBlocksOfInputsAreTheSame) {
  std::uint8_t value = 0;
  ProductTask task{.w = {.dtype = DType::kF8E4M3}, .x_fp8 = {.values = &value}};
  EXPECT_TRUE(fp8_rows(task));
  task.w.scale_phase = 64;
  EXPECT_FALSE(fp8_rows(task));
  task.w = {.dtype = DType::kBF16};
  EXPECT_FALSE(fp8_rows(task));
  EXPECT_FALSE(fp8_rows({.w = {.dtype = DType::kF8E4M3}}));
}

TEST(CudaLayoutTest, SplitsHoldEveryInputOnce) {
  for (const int phase : {0, 1, 64, 127}) {
    for (const int k : {1, 127, 128, 129, 1024, 1025, 4000}) {
      const PackedMatrix w{.k = k, .scale_phase = phase};
      int at = 0;
      for (int s = 0; s < splits_of(w); ++s) {
        EXPECT_EQ(split_begin(w, s), at);
        EXPECT_GT(split_end(w, s), at);
        at = split_end(w, s);
      }
      EXPECT_EQ(at, k);
      EXPECT_EQ(splits_of(w), scale_blocks(w));
      EXPECT_GE(spans_of(w) * kSpanSplits, splits_of(w));
      EXPECT_LT((spans_of(w) - 1) * kSpanSplits, splits_of(w));
    }
  }
}

TEST(CudaLayoutTest, TilesHoldEveryRowOnce) {
  const PackedMatrix small{.n = 100, .k = 64};
  const PackedMatrix large{.n = 500, .k = 3000};
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int most : {1, 16, 17, 64, 200}) {
      const std::vector<ProductTask> tasks = {{.w = large, .rows = most},
                                              {.w = small, .rows = 0},
                                              {.w = small, .rows = (most + 1) / 2}};
      ProductPlan plan;
      plan_products(tasks, dtype, 1, plan);
      EXPECT_EQ(plan.panels, 8);
      EXPECT_EQ(plan.spans, 3);
      EXPECT_EQ(plan.spans_each, 3) << "there are blocks enough for one processor";
      EXPECT_LE(plan.tile_rows, max_tile_rows(dtype));
      std::vector<int> next(tasks.size(), 0);
      for (const ProductTile& tile : plan.tiles) {
        auto& row = next[static_cast<std::size_t>(tile.task)];
        EXPECT_EQ(tile.row, row);
        row += plan.tile_rows;
      }
      for (std::size_t i = 0; i < tasks.size(); ++i) {
        EXPECT_GE(next[i], tasks[i].rows);
        EXPECT_LT(next[i] - plan.tile_rows, std::max(1, tasks[i].rows));
      }
    }
  }
}

TEST(CudaLayoutTest, GroupsOfTheDeviceAreTheKernelsFromManyRowsOnAverage) {
  const auto rows = [](int slots, int experts) { return wide_expert_rows(17, slots, experts); };
  EXPECT_EQ(rows(2048 * 6, 64), 128) << "a prompt: 192 of each";
  EXPECT_EQ(rows(64 * 6, 64), 0) << "decoding: 6 of each";
  EXPECT_EQ(rows(16 * 64, 64), 0) << "a tile of the kernel for few";
  EXPECT_EQ(rows(17 * 64, 64), 64);
  EXPECT_EQ(rows(48 * 64, 64), 64);
  EXPECT_EQ(rows(48 * 64 + 1, 64), 128);
  EXPECT_EQ(rows(100, 0), 0);
  EXPECT_EQ(wide_expert_rows(0, 2048 * 6, 64), 0) << "a GPU that has it not";
}

TEST(CudaLayoutTest, BlocksTakeSpansWhileThereAreEnoughOfThem) {
  const auto spans_of_a_block = [](int n, int k, int rows) {
    const std::vector<ProductTask> tasks = {{.w = {.n = n, .k = k}, .rows = rows}};
    ProductPlan plan;
    plan_products(tasks, DType::kBF16, 132, plan);
    return plan.spans_each;
  };
  EXPECT_EQ(spans_of_a_block(512, 4096, 1), 1) << "8 panels";
  EXPECT_EQ(spans_of_a_block(4096, 14336, 1), 4) << "64 panels, 14 spans";
  EXPECT_EQ(spans_of_a_block(14336, 4096, 16), 4) << "224 panels, 4 spans";
  EXPECT_EQ(spans_of_a_block(4096, 14336, 64), 1) << "fewer blocks than twice the processors";
  EXPECT_EQ(spans_of_a_block(32768, 4096, 64), 4);
}

TEST(CudaLayoutTest, ATokensSlotsComeInTheOrderOfGroups) {
  const std::vector<Group> groups = {{0, 3}, {3, 3}, {3, 5}, {5, 6}};
  const std::vector<std::int32_t> token = {0, 1, 2, 0, 2, 2};
  TokenSlots found;
  const SlotList alone[] = {{groups, token.data(), 0}};
  slots_of_tokens(alone, 3, found);
  EXPECT_EQ(found.first, (std::vector<std::int32_t>{0, 2, 3, 6}));
  EXPECT_EQ(found.slots, (std::vector<std::int32_t>{0, 3, 1, 2, 4, 5}));
  // Those of adapters come after the others of their token.
  const std::vector<Group> adapters = {{0, 1}, {1, 3}};
  const std::vector<std::int32_t> adapted = {2, 0, 2};
  const SlotList both[] = {{groups, token.data(), 0}, {adapters, adapted.data(), 6}};
  slots_of_tokens(both, 3, found);
  EXPECT_EQ(found.first, (std::vector<std::int32_t>{0, 3, 4, 9}));
  EXPECT_EQ(found.slots, (std::vector<std::int32_t>{0, 3, 7, 1, 2, 4, 5, 6, 8}));
}

TEST(CudaLayoutTest, RowsThatAreNotAlignedAreNotLoadedFourAtATime) {
  alignas(16) const float x[8] = {};
  std::vector<ProductTask> tasks = {{.w = {.k = 4}, .x = x}};
  EXPECT_TRUE(wide_rows(tasks, 8));
  EXPECT_FALSE(wide_rows(tasks, 6));
  tasks[0].x = x + 1;
  EXPECT_FALSE(wide_rows(tasks, 8));
  tasks[0].x = x;
  tasks[0].w.scale_phase = 2;
  EXPECT_FALSE(wide_rows(tasks, 8));
}

}  // namespace
}  // namespace dsm::kernels::cuda
