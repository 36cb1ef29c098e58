// Weights rounded to INT8 and INT4 against the definition of rounding and of the layout, element by
// element.
#include "kernels/cpu/integers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/integers_fixture.h"
#include "kernels/cpu/pack.h"

namespace dsm::kernels {
namespace {

constexpr DType kIntegers[] = {DType::kInt8, DType::kInt4};

TEST(Integers, TheLargestValueIsExactAndTheOthersAreTheNearest) {
  const float values[] = {0.5F, -2.0F, 0.1F, 1.99F};
  EXPECT_EQ(integer_scale(values, DType::kInt8), 2.0F / 128);
  EXPECT_EQ(integer_scale(values, DType::kInt4), 2.0F / 8);
  const float other[] = {0.5F, 2.0F};
  EXPECT_EQ(integer_scale(other, DType::kInt4), -2.0F / 8);
  EXPECT_EQ(nearest_integer(2.0F, -0.25F, DType::kInt4), -8);
  EXPECT_EQ(nearest_integer(-2.0F, -0.25F, DType::kInt4), 7) << "8 is not there";
  EXPECT_EQ(nearest_integer(0.3F, 0.25F, DType::kInt4), 1);
  EXPECT_EQ(nearest_integer(0.375F, 0.25F, DType::kInt4), 2) << "a tie goes to the even one";
  EXPECT_EQ(nearest_integer(0.625F, 0.25F, DType::kInt4), 2);
  EXPECT_EQ(nearest_integer(-1.0F, 2.0F / 128, DType::kInt8), -64);
  EXPECT_EQ(nearest_integer(2.0F, 2.0F / 128, DType::kInt8), 127);
}

TEST(Integers, ABlockThatIsZeroOrTooSmallForAScaleIsZero) {
  const float zero[] = {0.0F, -0.0F};
  const float tiny[] = {std::numeric_limits<float>::denorm_min(), 0.0F};
  for (const DType dtype : kIntegers) {
    EXPECT_EQ(integer_scale(zero, dtype), 0.0F);
    EXPECT_EQ(integer_scale(tiny, dtype), 0.0F);
    EXPECT_EQ(nearest_integer(tiny[0], 0.0F, dtype), 0);
  }
}

TEST(Integers, ASliceHasTheWeightsOfTheWholeTensorWhereverItBegins) {
  const Tensor tensor(150, 450, 1);
  for (const DType dtype : kIntegers) {
    const auto wanted = tensor.rounded(dtype);
    for (const auto& [row, n, column, k] : {std::array{0, 150, 0, 450},
                                            {100, 50, 77, 300},
                                            {3, 64, 127, 2},
                                            {7, 1, 449, 1},
                                            {0, 70, 130, 130},
                                            {10, 65, 252, 12}}) {
      const Packed packed({tensor.slice(row, n, column, k, dtype)});
      ASSERT_EQ(packed.matrix.dtype, dtype);
      ASSERT_TRUE(packed.finite);
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < k; ++i) {
          const auto at = static_cast<std::size_t>((row + j) * tensor.columns + column + i);
          const float got = packed_at(packed.matrix, j, i);
          ASSERT_EQ(got, wanted.values[at]) << row << "+" << j << ", " << column << "+" << i;
          // Half a step, and a whole one where the integer that would be nearest is left out.
          ASSERT_LE(std::abs(got - tensor.values[at]), wanted.steps[at] * 1.0001F);
        }
      }
    }
  }
}

TEST(Integers, WeightsInBf16AndInFp8AreRoundedAsTheirValuesInFp32) {
  constexpr int kColumns = 200;
  std::mt19937 random(2);
  std::vector<std::uint16_t> bf16;
  std::vector<std::byte> fp8;
  Tensor of_bf16(70, kColumns, 3);
  Tensor of_fp8 = of_bf16;
  const float scales[] = {0.01F, 0.3F};
  for (std::size_t i = 0; i < of_bf16.values.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &of_bf16.values[i], 4);
    bf16.push_back(static_cast<std::uint16_t>(bits >> 16));
    bits &= 0xffff0000U;
    std::memcpy(&of_bf16.values[i], &bits, 4);
    fp8.push_back(std::byte{static_cast<unsigned char>(random() & 0xb7U)});  // not NaN
    of_fp8.values[i] =
        from_e4m3(std::to_integer<std::uint8_t>(fp8.back())) * scales[i % kColumns / 128];
  }
  for (const DType dtype : kIntegers) {
    for (const int column : {0, 5}) {
      WeightPiece piece = of_bf16.slice(0, 70, column, 190, dtype);
      const Packed from_f32({piece});
      piece.data = reinterpret_cast<const std::byte*>(bf16.data());
      piece.dtype = DType::kBF16;
      EXPECT_EQ(Packed({piece}).storage, from_f32.storage);
      WeightPiece small = of_fp8.slice(0, 70, column, 190, dtype);
      const Packed of_values({small});
      small.data = fp8.data();
      small.dtype = DType::kF8E4M3;
      small.scales = {reinterpret_cast<const std::byte*>(scales), DType::kF32, 128, 128, kColumns};
      const Packed from_fp8({small});
      EXPECT_EQ(from_fp8.storage, of_values.storage);
      EXPECT_FALSE(from_fp8.matrix.stored_fp8);
    }
  }
}

TEST(Integers, PiecesStandSideBySideWithZerosBetween) {
  const Tensor one(40, 131, 4);
  const Tensor two(50, 131, 5);
  for (const DType dtype : kIntegers) {
    const std::vector<float> first = one.rounded(dtype).values;
    const std::vector<float> last = two.rounded(dtype).values;
    const Packed packed(
        {one.slice(5, 30, 0, 131, dtype), {.n = 26, .k = 131}, two.slice(0, 50, 0, 131, dtype)});
    ASSERT_EQ(packed.matrix.dtype, dtype);
    ASSERT_EQ(packed.matrix.n, 106);
    for (int j = 0; j < 128; ++j) {
      for (int i = 0; i < 131; ++i) {
        float wanted = 0;
        if (j < 30) wanted = first[static_cast<std::size_t>((5 + j) * 131 + i)];
        if (j >= 56 && j < 106) wanted = last[static_cast<std::size_t>((j - 56) * 131 + i)];
        ASSERT_EQ(packed_at(packed.matrix, j, i), wanted) << j << ", " << i;
      }
    }
  }
}

TEST(Integers, WhatCannotBeRoundedTogetherStaysAsItIs) {
  const Tensor tensor(40, 300, 6);
  const auto type_of = [](const std::vector<WeightPiece>& pieces) { return packed_dtype(pieces); };
  const auto piece = tensor.slice(0, 10, 0, 150, DType::kInt8);
  EXPECT_EQ(type_of({piece, tensor.slice(0, 10, 1, 150, DType::kInt8)}), DType::kF32);
  EXPECT_EQ(type_of({piece, tensor.slice(0, 10, 0, 150, DType::kInt4)}), DType::kF32);
  EXPECT_EQ(type_of({piece, tensor.slice(0, 10, 0, 150, {})}), DType::kF32);
  EXPECT_EQ(type_of({piece, tensor.slice(9, 10, 128, 150, DType::kInt8)}), DType::kInt8);
  WeightPiece transposed = piece;
  std::swap(transposed.n, transposed.k);
  std::swap(transposed.n_stride, transposed.k_stride);
  EXPECT_EQ(type_of({transposed}), DType::kF32);
}

TEST(Integers, AWeightThatIsNotFiniteIsSeenInItsPanel) {
  for (const DType dtype : kIntegers) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      Tensor tensor(130, 200, 7);
      const std::vector<WeightPiece> pieces{tensor.slice(0, 130, 0, 200, dtype)};
      const Packed packed(pieces);
      EXPECT_TRUE(packed.finite);
      tensor.values[70 * 200 + 199] = bad;
      EXPECT_TRUE(pack_panels(pieces, packed.matrix, 0, 1));
      EXPECT_FALSE(pack_panels(pieces, packed.matrix, 1, 2));
    }
  }
}

TEST(Integers, PanelsPackedApartAreTheMatrixPackedWhole) {
  const Tensor tensor(300, 140, 8);
  for (const DType dtype : kIntegers) {
    const std::vector<WeightPiece> pieces{tensor.slice(3, 250, 1, 139, dtype)};
    const Packed whole(pieces);
    std::vector<std::byte> storage(whole.storage.size(), std::byte{0x55});
    const PackedMatrix parts = packed_matrix(pieces, storage.data());
    EXPECT_TRUE(pack_panels(pieces, parts, 2, 4));
    EXPECT_TRUE(pack_panels(pieces, parts, 0, 1));
    EXPECT_TRUE(pack_panels(pieces, parts, 1, 2));
    EXPECT_EQ(storage, whole.storage);
  }
}

}  // namespace
}  // namespace dsm::kernels
