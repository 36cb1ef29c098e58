// Operands of tensor cores, which the 32 lanes take from packed panels, multiplied as PTX says, on
// the CPU.
#include "kernels/cuda/fragments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/cuda/integer_fragments.h"
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

std::size_t size(int count) {
  return static_cast<std::size_t>(count);
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
          y[size(row_of(i, lane)) * kPanel + size(column)] += sums[j][lane][i] * scale;
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
  // By integers the CPU's inputs have 16 bits for the largest of 128.
  const float bound = (is_integer(w.dtype) ? 2.5e-4F : 6e-5F) * std::sqrt(static_cast<float>(w.k));
  for (const int rows : {1, 7, 16}) {
    const auto x = random_floats(size(rows) * size(w.k), seed);
    const auto got = warp_product(x, rows, w);
    const auto wanted = cpu_product(x, rows, w);
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], bound)
          << "n " << w.n << " k " << w.k << " rows " << rows << " at " << i;
    }
  }
}

TEST(CudaFragmentsTest, LanesTakeBf16WeightsFromPanels) {
  for (const int n : {64, 40}) {
    for (const int k : {1, 2, 15, 16, 31, 128, 144, 300}) {
      const auto values = random_floats(size(n) * size(k), 5);
      std::vector<std::byte> bytes(values.size() * 2);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto half = static_cast<std::uint16_t>(as_bits(values[i]) >> 16);
        std::memcpy(bytes.data() + 2 * i, &half, 2);
      }
      expect_equal_products({bytes.data(), DType::kBF16, k, 1, n, k}, 6);
    }
  }
}

TEST(CudaFragmentsTest, LanesTakeFp8WeightsFromPanelsWhereverTheirBlocksBegin) {
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

TEST(CudaFragmentsTest, LanesTakeIntegersFromPanelsWhereverTheirBlocksBegin) {
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

TEST(CudaFragmentsTest, LanesTakeFp8OnBothSides) {
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

}  // namespace
}  // namespace dsm::kernels::cuda
