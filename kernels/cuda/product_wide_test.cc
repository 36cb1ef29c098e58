// How products of many rows are divided.
#include "kernels/cuda/product_wide.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/cuda/product_plan.h"

namespace dsm::kernels::cuda {
namespace {

TEST(CudaWideProductTest, PartsHoldEveryStageOnce) {
  for (const int k : {1, 64, 65, 1000, 1024, 1025, 4096, 14336}) {
    const PackedMatrix w = {.k = k};
    for (const int parts : {1, 2, 3, 5, 14, 50}) {
      int at = 0;
      for (int part = 0; part < parts; ++part) {
        const auto [begin, end] = wide_part(w, part, parts);
        if (part >= spans_of(w)) {
          EXPECT_EQ(begin, end) << "finish_products() adds no more than spans";
          continue;
        }
        EXPECT_EQ(begin, at);
        EXPECT_GT(end, begin);
        at = end;
      }
      EXPECT_EQ(at, wide_stages(w));
      EXPECT_GE(at * kWideInputs, k);
    }
  }
}

TEST(CudaWideProductTest, BlocksOfATileComeTogetherWhereTilesAreMany) {
  EXPECT_TRUE(tile_by_tile(160, 44)) << "experts of a prompt";
  EXPECT_FALSE(tile_by_tile(16, 448)) << "a dense product";
  EXPECT_FALSE(tile_by_tile(1, 1));
  EXPECT_TRUE(tile_by_tile(2, 4));
}

TEST(CudaWideProductTest, InputsAreCutOnlyWhereBlocksAreFew) {
  EXPECT_EQ(wide_parts(1, 448, 4, 132), 1) << "112 blocks";
  EXPECT_EQ(wide_parts(1, 64, 14, 132), 8) << "16 blocks";
  EXPECT_EQ(wide_parts(1, 96, 4, 132), 4) << "no more than spans";
  EXPECT_EQ(wide_parts(16, 64, 14, 132), 1);
  EXPECT_EQ(wide_parts(1, 1, 1, 132), 1);
}

TEST(CudaWideProductTest, TilesAreAsWideAsTheirRowsNeed) {
  for (const int most : {17, 64, 65, 300}) {
    const std::vector<ProductTask> tasks = {{.w = {.n = 300, .k = 3000}, .rows = most},
                                            {.w = {.n = 70, .k = 64}, .rows = 20}};
    ProductPlan plan;
    plan_wide_products(tasks, 132, true, plan);
    EXPECT_EQ(plan.tile_rows, most <= 64 ? 64 : 128);
    EXPECT_EQ(plan.panels, 5);
    EXPECT_EQ(plan.spans, 3);
    EXPECT_LT(plan.spans_each, plan.spans);
    const int tiles = (most + plan.tile_rows - 1) / plan.tile_rows;
    ASSERT_EQ(plan.tiles.size(), static_cast<std::size_t>(tiles) + 1);
    EXPECT_EQ(plan.tiles.back().task, 1);
    EXPECT_EQ(plan.tiles.back().row, 0);
  }
}

TEST(CudaWideProductTest, PairsTakeWhatFillsTheirTilesAndTheProcessors) {
  EXPECT_TRUE(pairs_pay(2048, 8, 448, 132));
  EXPECT_TRUE(pairs_pay(2048, 8, 64, 132)) << "128 pieces in two turns of 66 pairs";
  EXPECT_FALSE(pairs_pay(2048, 8, 40, 132)) << "80 pieces in two turns";
  EXPECT_TRUE(pairs_pay(1800, 8, 448, 132));
  EXPECT_FALSE(pairs_pay(1300, 6, 448, 132)) << "most of the last tile is for no row";
  EXPECT_FALSE(pairs_pay(300, 2, 448, 132));
  EXPECT_FALSE(pairs_pay(2048, 8, 448, 1));

  const std::vector<ProductTask> one = {{.w = {.n = 28672, .k = 4096}, .rows = 2000}};
  ProductPlan plan;
  plan_wide_products(one, 132, true, plan);
  EXPECT_EQ(plan.tile_rows, kPairedRows);
  EXPECT_EQ(plan.tiles.size(), 8U);
  EXPECT_EQ(plan.spans, 1);
  plan_wide_products(one, 132, false, plan);
  EXPECT_EQ(plan.tile_rows, 128);
  EXPECT_EQ(plan.tiles.size(), 16U);
}

TEST(CudaWideProductTest, RowsAreTheKernelsWhereItRuns) {
  EXPECT_EQ(wide_kernel_rows(8).below, 0);
  EXPECT_EQ(wide_kernel_rows(10).below, 0);
  EXPECT_EQ(wide_kernel_rows(9).from, 17) << "more than a tile of the kernel for few";
  EXPECT_EQ(wide_kernel_rows(9).below, std::numeric_limits<int>::max());
}

}  // namespace
}  // namespace dsm::kernels::cuda
