// How products of many rows are divided.
#include "kernels/cuda/product_wide.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/product_wide_fp8.h"

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
  EXPECT_TRUE(pairs_pay(2048, 8, 9, 132)) << "24 pieces for 66 pairs";
  EXPECT_FALSE(pairs_pay(2048, 8, 8, 132)) << "16 pieces";
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

TEST(CudaWideProductTest, RowsAreTheKernelsWhereItRunsAndIsWanted) {
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3, DType::kInt8, DType::kInt4}) {
    EXPECT_EQ(wide_kernel_rows(8, dtype, 1).below, 0);
    EXPECT_EQ(wide_kernel_rows(10, dtype, 1).below, 0);
    EXPECT_EQ(wide_kernel_rows(9, dtype, 0).below, 0);
    EXPECT_EQ(wide_kernel_rows(9, dtype, 1).from, 17) << "more than a tile of that for few";
    EXPECT_EQ(wide_kernel_rows(9, dtype, 512).from, 512);
    EXPECT_EQ(wide_kernel_rows(9, dtype, 512).below, std::numeric_limits<int>::max());
  }
  EXPECT_EQ(wide_kernel_rows(9, DType::kF32, 1).below, 0);
}

// What a warp's lanes get of lines of 16 bytes, as load_transposed() of ptx.cuh says.
struct Matrices {
  std::uint32_t v[32][4];
};
Matrices load_matrices(const std::uint8_t* panel, int warp, int step) {
  Matrices to{};
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int i = 0; i < 2; ++i) {
        const std::uint8_t* line =
            panel + fp8_line(warp, 8 * m + lane % 4 * 2 + i) + step * kFp8StepBytes + lane / 4 * 2;
        to.v[lane][m] |= (line[0] | std::uint32_t{line[1]} << 8U) << 16 * i;
      }
    }
  }
  return to;
}

TEST(CudaWideFp8ProductTest, SlotsOfWeightsAndRowsStandForTheSameInputs) {
  // A panel whose bytes tell the input, and one whose bytes tell the column.
  std::vector<std::uint8_t> inputs(kFp8Pieces * kFp8PieceBytes, 0xff);
  std::vector<std::uint8_t> columns = inputs;
  for (int i = 0; i < kFp8StageInputs; ++i) {
    for (int c = 0; c < kPanel; ++c) {
      const auto at = static_cast<std::size_t>(i / kFp8PieceInputs * kFp8PieceBytes +
                                               i % kFp8PieceInputs * kPanel + c);
      inputs[at] = static_cast<std::uint8_t>(i);
      columns[at] = static_cast<std::uint8_t>(c);
    }
  }
  for (int warp = 0; warp < 4; ++warp) {
    for (int step = 0; step < kFp8StageSteps; ++step) {
      Matrices of_inputs = load_matrices(inputs.data(), warp, step);
      Matrices of_columns = load_matrices(columns.data(), warp, step);
      for (int lane = 0; lane < 32; ++lane) {
        fp8_operand_of(of_inputs.v[lane]);
        fp8_operand_of(of_columns.v[lane]);
        for (int r = 0; r < 4; ++r) {
          for (int i = 0; i < 4; ++i) {
            const int slot = step * 32 + r / 2 * 16 + lane % 4 * 4 + i;
            EXPECT_EQ(of_inputs.v[lane][r] >> 8 * i & 0xffU, fp8_input(slot));
            EXPECT_EQ(of_columns.v[lane][r] >> 8 * i & 0xffU, warp * 16 + lane / 4 * 2 + r % 2);
          }
        }
      }
    }
  }
}

TEST(CudaWideFp8ProductTest, LinesOfAMatrixAreOnDifferentBanks) {
  for (int warp = 0; warp < 4; ++warp) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      unsigned banks = 0;  // of 16 bytes
      for (int line = 0; line < 8; ++line) {
        banks |= 1U << (fp8_line(warp, 8 * matrix + line) / 16 % 8);
      }
      EXPECT_EQ(banks, 0xffU);
    }
  }
}

TEST(CudaWideFp8ProductTest, InputsThatAreNotThereAreZero) {
  const std::vector<std::uint8_t> ones(kFp8Pieces * kFp8PieceBytes, 1);
  for (const int all : {1, 2, 31, 33, 64, 77, 127, 128}) {
    for (int step = 0; step < kFp8StageSteps; ++step) {
      Matrices of = load_matrices(ones.data(), 0, step);
      for (int lane = 0; lane < 32; ++lane) {
        clear_fp8_inputs(step, all - lane % 4 * kFp8PieceInputs, of.v[lane]);
        fp8_operand_of(of.v[lane]);
        for (int r = 0; r < 4; ++r) {
          for (int i = 0; i < 4; ++i) {
            const int input = fp8_input(step * 32 + r / 2 * 16 + lane % 4 * 4 + i);
            EXPECT_EQ(of.v[lane][r] >> 8 * i & 0xffU, input < all ? 1U : 0U) << input;
          }
        }
      }
    }
  }
}

TEST(CudaWideFp8ProductTest, ALanesScalesAreFourNeighbours) {
  for (int q = 0; q < 4; ++q) {
    for (int j = 0; j < kFp8BlockRows / 8; ++j) {
      for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(fp8_scale_place(8 * j + 2 * q + i), j / 2 * 16 + q * 4 + j % 2 * 2 + i);
      }
    }
  }
}

TEST(CudaWideFp8ProductTest, PartsHoldEverySplitOnce) {
  for (const int k : {1, 128, 1025, 4096, 14336}) {
    const PackedMatrix w = {.k = k};
    for (const int parts : {1, 3, 14, 50}) {
      int at = 0;
      for (int part = 0; part < std::min(parts, spans_of(w)); ++part) {
        const auto [begin, end] = wide_fp8_part(w, part, parts);
        EXPECT_EQ(begin, at);
        EXPECT_GT(end, begin);
        at = end;
      }
      EXPECT_EQ(at, splits_of(w));
      EXPECT_EQ(wide_fp8_part(w, spans_of(w), parts).end, 0) << "no more parts than spans";
    }
  }
}

TEST(CudaWideFp8ProductTest, TilesAreAsWideAsTheirRowsNeed) {
  for (const auto& [rows, tile] :
       {std::pair{17, 64}, {64, 64}, {65, 128}, {128, 128}, {300, 256}}) {
    const std::vector<ProductTask> tasks = {{.w = {.n = 4096, .k = 14336}, .rows = rows}};
    ProductPlan plan;
    EXPECT_FALSE(plan_wide_fp8_products(tasks, 132, false, plan));
    EXPECT_EQ(plan.tile_rows, tile);
    EXPECT_EQ(plan.spans, rows <= 256 ? 4 : 2) << "32 pairs of panels, which 132 blocks divide";
  }
  const std::vector<ProductTask> prompt = {{.w = {.n = 4096, .k = 14336}, .rows = 2048}};
  ProductPlan plan;
  EXPECT_TRUE(plan_wide_fp8_products(prompt, 132, true, plan));
  EXPECT_EQ(plan.tile_rows, kFp8HeldRows);
  EXPECT_EQ(plan.spans, 1);
  EXPECT_EQ(wide_fp8_rows(8).below, 0);
  EXPECT_EQ(wide_fp8_rows(10).below, 0);
  EXPECT_EQ(wide_fp8_rows(9).from, 17) << "more than a tile of the kernel for few";
}

TEST(CudaWideFp8ProductTest, PiecesAreAllTilesOfAllColumnsAndTilesStayTogether) {
  for (const int tiles : {1, 8, 16, 17, 40}) {
    for (const int columns : {1, 7}) {
      std::vector<int> taken(static_cast<std::size_t>(tiles * columns));
      for (int number = 0; number < tiles * columns; ++number) {
        const auto [tile, column] = paired_piece(number, tiles, columns);
        ASSERT_LT(tile, tiles);
        ASSERT_LT(column, columns);
        ++taken[static_cast<std::size_t>(tile * columns + column)];
        EXPECT_EQ(tile / kTilesTogether, number / (kTilesTogether * columns));
      }
      EXPECT_EQ(taken, std::vector<int>(taken.size(), 1)) << tiles << " tiles";
    }
  }
  EXPECT_EQ(paired_piece(1, 8, 7).tile, 1) << "the same weights one after the other";
}

// A row's fours of inputs stand where its slots do.
TEST(CudaWideFp8ProductTest, FoursStandInTheOrderOfSlots) {
  for (const int row : {0, 5, 255}) {
    for (int slot = 0; slot < kFp8StageInputs; ++slot) {
      const int at = row * kFp8StageInputs + ((slot / 16 ^ row % 8) * 16 + slot % 16);
      const int input = fp8_input(slot);
      EXPECT_EQ(fp8_word_at(row, input / 4) * 4 + input % 4, at);
    }
  }
}

}  // namespace
}  // namespace dsm::kernels::cuda
