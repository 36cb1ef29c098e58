// What the GPU's kernels compute with, on the CPU: operands of tensor cores, which the 32 lanes
// take from packed panels, multiplied as PTX says; how inputs and rows are divided; numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/splits.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels::cuda {
namespace {

// D += A B as PTX's mma.m16n8k16 has it, by the places that its manual gives the registers.
void multiply(float (*sums)[4], const FragmentA* a, const FragmentB* b, int product) {
  float left[16][16];
  float right[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int q = lane % 4;
    for (int r = 0; r < 4; ++r) {
      left[g + r % 2 * 8][2 * q + r / 2 * 8] = first_of(a[lane].v[r]);
      left[g + r % 2 * 8][2 * q + r / 2 * 8 + 1] = second_of(a[lane].v[r]);
    }
    for (int r = 0; r < 2; ++r) {
      right[2 * q + r * 8][g] = first_of(b[lane].v[product][r]);
      right[2 * q + r * 8 + 1][g] = second_of(b[lane].v[product][r]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < 16; ++k) {
        sums[lane][i] += left[lane / 4 + i / 2 * 8][k] * right[k][lane % 4 * 2 + i % 2];
      }
    }
  }
}

// What a lane multiplies in a step: the weights, and the first of its four inputs.
struct Step {
  FragmentB b;
  int first;
};
// Step number `index` of the split [begin, end) of panel 0.
Step step_of(const PackedMatrix& w, int begin, int end, int index, int lane) {
  const int at = begin + index * kStepInputs;
  const auto* words = static_cast<const std::uint32_t*>(w.data);
  switch (w.dtype) {
    case DType::kBF16:
      return {load_bf16(words, at, end, lane), first_input(at, lane)};
    case DType::kInt8:
      return {operand(load_int8(words, lead_of(w), at, end, lane)), first_input(at, lane)};
    case DType::kInt4: {
      const int pair = begin + index / 2 * kPairInputs;
      return {int4_operand(load_int4(words, lead_of(w), pair, end, lane), index % 2),
              int4_input(pair, index % 2, lane)};
    }
    default:
      return {operand(load_e4m3<4>(static_cast<const std::uint8_t*>(w.data), at, end, lane)),
              first_input(at, lane)};
  }
}

// The same as mma.m16n8k32 has it, with both sides in FP8.
void multiply_fp8(float (*sums)[4], const FragmentA* a, const FragmentB* b, int product) {
  const auto byte_of = [](std::uint32_t word, int i) {
    return from_e4m3(static_cast<std::uint8_t>(word >> (8 * i)));
  };
  float left[16][32];
  float right[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int q = lane % 4;
    for (int i = 0; i < 4; ++i) {
      for (int r = 0; r < 4; ++r) {
        left[g + r % 2 * 8][4 * q + r / 2 * 16 + i] = byte_of(a[lane].v[r], i);
      }
      for (int r = 0; r < 2; ++r) right[4 * q + r * 16 + i][g] = byte_of(b[lane].v[product][r], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < 32; ++k) {
        sums[lane][i] += left[lane / 4 + i / 2 * 8][k] * right[k][lane % 4 * 2 + i % 2];
      }
    }
  }
}

// 16 rows [16, k] (from row `rows` on: none) times panel 0 of w, as a warp computes it.
std::vector<float> warp_product(const std::vector<float>& x, int rows, const PackedMatrix& w) {
  std::vector<float> y(16 * kPanel, 0.0F);
  for (int split = 0; split < splits_of(w); ++split) {
    float sums[kProducts][32][4] = {};
    const int end = split_end(w, split);
    const int begin = is_integer(w.dtype) && split == 0 ? -lead_of(w) : split_begin(w, split);
    const int steps = (end - begin + kStepInputs - 1) / kStepInputs;
    // INT4 goes by pairs of steps.
    for (int index = 0; index < (w.dtype == DType::kInt4 ? steps + steps % 2 : steps); ++index) {
      FragmentA high[32];
      FragmentA low[32];
      FragmentB b[32];
      for (int lane = 0; lane < 32; ++lane) {
        const auto row = [&](int r) { return r < rows ? x.data() + r * w.k : nullptr; };
        const bool wide = w.k % 4 == 0 && w.scale_phase % 4 == 0;
        const Step step = step_of(w, begin, end, index, lane);
        const Activations four =
            load_activations(row(lane / 4), row(lane / 4 + 8), step.first, end, wide);
        high[lane] = rounded(four);
        low[lane] = remainder(four, high[lane]);
        b[lane] = step.b;
      }
      for (int j = 0; j < kProducts; ++j) {
        multiply(sums[j], high, b, j);
        multiply(sums[j], low, b, j);
      }
    }
    for (int j = 0; j < kProducts; ++j) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
          const int column = column_of(j, i, lane);
          float scale = has_scales(w) ? w.scales[split * kPanel + column] : 1.0F;
          if (w.dtype == DType::kF8E4M3) scale *= 0x1p-120F;
          y[static_cast<std::size_t>(row_of(i, lane) * kPanel + column)] +=
              sums[j][lane][i] * scale;
        }
      }
    }
  }
  return y;
}

// The same by the CPU's operator.
std::vector<float> cpu_product(const std::vector<float>& x, int rows, const PackedMatrix& w) {
  std::vector<float> y(16 * kPanel, 0.0F);
  const LinearParams p{
      .x = x.data(), .ldx = w.k, .w = &w, .y = y.data(), .ldy = kPanel, .rows = rows};
  available_ops()[0]->linear(p, 0, 0, rows, 0);
  return y;
}

void expect_equal_products(const WeightPiece& piece, unsigned seed) {
  std::vector<std::byte> storage(packed_bytes(packed_dtype({&piece, 1}), piece.n, piece.k) + 64);
  void* at = storage.data();
  std::size_t space = storage.size();
  std::align(64, space - 64, at, space);
  const PackedMatrix w = pack({&piece, 1}, at);
  ASSERT_EQ(w.dtype, piece.round_to.value_or(piece.dtype));
  for (const int rows : {1, 7, 16}) {
    const auto x = random_floats(static_cast<std::size_t>(rows * w.k), seed);
    const auto got = warp_product(x, rows, w);
    const auto wanted = cpu_product(x, rows, w);
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], 6e-5F * std::sqrt(static_cast<float>(w.k)))
          << "n " << w.n << " k " << w.k << " rows " << rows << " at " << i;
    }
  }
}

TEST(CudaLayoutTest, LanesTakeBf16WeightsFromPanels) {
  for (const int n : {64, 40}) {
    for (const int k : {1, 2, 15, 16, 31, 128, 144, 300}) {
      const auto values = random_floats(static_cast<std::size_t>(n * k), 5);
      std::vector<std::byte> bytes(values.size() * 2);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto half = static_cast<std::uint16_t>(as_bits(values[i]) >> 16);
        std::memcpy(bytes.data() + 2 * i, &half, 2);
      }
      expect_equal_products({bytes.data(), DType::kBF16, k, 1, n, k}, 6);
    }
  }
}

TEST(CudaLayoutTest, LanesTakeFp8WeightsFromPanelsWhereverTheirBlocksBegin) {
  constexpr int kColumns = 500;
  std::mt19937 random(9);
  std::vector<std::byte> bytes(std::size_t{64} * kColumns);
  for (auto& byte : bytes) {
    auto bits = static_cast<std::uint8_t>(random());
    if ((bits & 0x7fU) == 0x7fU) bits = 1;  // the smallest; 0x7f is not a number
    byte = std::byte{bits};
  }
  const float scales[] = {0.01F, 0.003F, 0.25F, 0.02F};
  const BlockScales blocks{reinterpret_cast<const std::byte*>(scales), DType::kF32, 128, 128,
                           kColumns};
  for (const int first : {0, 4, 77, 127}) {
    for (const int k : {1, 60, 128, 300}) {
      std::vector<std::byte> small = bytes;  // keep sums near one
      for (auto& byte : small) byte &= std::byte{0xb7};
      expect_equal_products({small.data(), DType::kF8E4M3, kColumns, 1, 64, k, first, blocks}, 7);
    }
  }
}

TEST(CudaLayoutTest, LanesTakeIntegersFromPanelsWhereverTheirBlocksBegin) {
  constexpr int kColumns = 500;
  const auto values = random_floats(std::size_t{64} * kColumns, 10);
  for (const DType dtype : {DType::kInt8, DType::kInt4}) {
    for (const int first : {0, 3, 4, 77, 124, 127}) {
      for (const int k : {1, 60, 128, 300}) {
        WeightPiece piece{reinterpret_cast<const std::byte*>(values.data()),
                          DType::kF32,
                          kColumns,
                          1,
                          64,
                          k,
                          first};
        piece.round_to = dtype;
        expect_equal_products(piece, 8);
      }
    }
  }
}

TEST(CudaLayoutTest, LanesTakeFp8OnBothSides) {
  std::mt19937 random(8);
  const auto fp8 = [&](std::vector<std::uint8_t>& bytes) {
    // Up to 0.47, none of which is not a number.
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() & 0xb7U);
  };
  for (const int k : {32, 100, 128}) {
    const auto ld = static_cast<std::size_t>(round_up(k, kScaleBlock));
    std::vector<std::uint8_t> panel(static_cast<std::size_t>(k) * kPanel);
    std::vector<std::uint8_t> x(16 * ld);
    fp8(panel);
    fp8(x);
    for (const int rows : {1, 9, 16}) {
      float sums[kProducts][32][4] = {};
      for (int at = 0; at < k; at += kFp8StepInputs) {
        FragmentA a[32];
        FragmentB b[32];
        for (int lane = 0; lane < 32; ++lane) {
          const auto row = [&](int r) {
            return r < rows ? x.data() + static_cast<std::size_t>(r) * ld : nullptr;
          };
          a[lane] = load_fp8_rows(row(lane / 4), row(lane / 4 + 8), at, lane);
          b[lane] = fp8_operand(load_e4m3<8>(panel.data(), at, k, lane));
        }
        for (int j = 0; j < kProducts; ++j) multiply_fp8(sums[j], a, b, j);
      }
      for (int j = 0; j < kProducts; ++j) {
        for (int lane = 0; lane < 32; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const auto row = static_cast<std::size_t>(row_of(i, lane));
            const auto column = static_cast<std::size_t>(column_of(j, i, lane));
            double wanted = 0;
            for (std::size_t at = 0; at < static_cast<std::size_t>(k); ++at) {
              wanted += static_cast<int>(row) < rows ? double{from_e4m3(x[row * ld + at])} *
                                                           from_e4m3(panel[at * kPanel + column])
                                                     : 0.0;
            }
            ASSERT_NEAR(sums[j][lane][i], wanted, 1e-5) << row << ", " << column;
          }
        }
      }
    }
  }
}

TEST(CudaLayoutTest, EveryIntegerIsExactInBf16) {
  for (int i = -128; i < 128; ++i) {
    const auto byte = static_cast<std::uint32_t>(i) & 0xffU;
    const std::uint32_t pair = bf16_pair_of_int8(byte | (byte ^ 0xffU) << 16 | 0xab00cd00U);
    EXPECT_EQ(first_of(pair), static_cast<float>(i));
    EXPECT_EQ(second_of(pair), static_cast<float>(-1 - i));
  }
  for (unsigned i = 0; i < 16; ++i) {
    const std::uint32_t pair = bf16_pair_of_int4(i | (15 - i) << 16 | 0xabc0def0U);
    EXPECT_EQ(first_of(pair), static_cast<float>(i) - 8);
    EXPECT_EQ(second_of(pair), 7 - static_cast<float>(i));
  }
}

TEST(CudaNumbersTest, EveryFp8ValueHasItsBits) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7fU) == 0x7fU) continue;
    EXPECT_EQ(bits_of_e4m3(from_e4m3(static_cast<std::uint8_t>(bits))), bits);
  }
}

TEST(CudaNumbersTest, BytesAreTakenByTheirPlaces) {
  EXPECT_EQ(bytes_of(0x33221100U, 0x77665544U, 0x3210), 0x33221100U);
  EXPECT_EQ(bytes_of(0x33221100U, 0x77665544U, 0x7052), 0x77005522U);
}

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

TEST(CudaLayoutTest, EveryFp8ValueIsExactInBf16) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7fU) == 0x7fU) continue;
    const std::uint32_t pair = bf16_pair_of_e4m3(bits, bits ^ 0x80U);
    EXPECT_EQ(as_bits(first_of(pair)), as_bits(from_e4m3(static_cast<std::uint8_t>(bits))));
    EXPECT_EQ(as_bits(second_of(pair)),
              as_bits(from_e4m3(static_cast<std::uint8_t>(bits ^ 0x80U))));
  }
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

TEST(CudaLayoutTest, TwoTermsKeepSixteenBitsOfAFraction) {
  for (const float x : random_floats(1000, 3)) {
    const Activations values = {{{x, 0, 0, 0}, {0, 0, 0, x}}};
    const FragmentA high = rounded(values);
    const FragmentA low = remainder(values, high);
    EXPECT_NEAR(first_of(high.v[0]) + first_of(low.v[0]), x, std::abs(x) * 0x1p-17F);
    EXPECT_NEAR(second_of(high.v[3]) + second_of(low.v[3]), x, std::abs(x) * 0x1p-17F);
  }
}

// By the CPU's router, which gives sigmoids away.
TEST(CudaNumbersTest, SigmoidIsTheCpusToTheBit) {
  auto logits = random_floats(1000, 4);
  for (float& logit : logits) logit *= 30;
  logits[0] = 0;
  logits[1] = -200;
  logits[2] = 200;
  const std::vector<float> bias(1, 0.0F);
  std::vector<std::int32_t> chosen(logits.size());
  std::vector<float> weights(logits.size());
  available_ops()[0]->router({.logits = logits.data(),
                              .ld = 1,
                              .bias = bias.data(),
                              .tokens = static_cast<int>(logits.size()),
                              .experts = 1,
                              .groups = 1,
                              .topk_groups = 1,
                              .top_k = 1,
                              .scale = 1,
                              .chosen = chosen.data(),
                              .weights = weights.data()},
                             0, static_cast<int>(logits.size()));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_EQ(as_bits(sigmoid_of(logits[i])), as_bits(weights[i])) << logits[i];
  }
}

TEST(CudaNumbersTest, RoundingToFp8IsTheCpusToTheBit) {
  for (const bool power_of_two : {false, true}) {
    auto x = random_floats(kScaleBlock, 8);
    x[3] = 1e-6F;
    std::vector<float> wanted(x.size());
    available_ops()[0]->quantise({.x = x.data(),
                                  .ldx = kScaleBlock,
                                  .y = wanted.data(),
                                  .ldy = kScaleBlock,
                                  .rows = 1,
                                  .width = kScaleBlock,
                                  .power_of_two = power_of_two},
                                 0, 1);
    float largest = 0;
    for (const float value : x) largest = std::max(largest, std::abs(value));
    const float scale = activation_scale_of(largest, power_of_two);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float value = std::clamp(x[i] / scale, -448.0F, 448.0F);
      EXPECT_EQ(as_bits(nearest_e4m3_of(value) * scale), as_bits(wanted[i]));
    }
  }
}

}  // namespace
}  // namespace dsm::kernels::cuda
