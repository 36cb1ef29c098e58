// Packed panels against the definition of the layout, element by element.
#include "kernels/cpu/pack.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace dsm::kernels {
namespace {

// Element (j, i) of a packed matrix, by the layout that kernels/params.h describes.
float packed_at(const PackedMatrix& w, int j, int i) {
  const auto k = static_cast<std::size_t>(w.k);
  const auto panel = static_cast<std::size_t>(j / kPanel);
  const auto lane = static_cast<std::size_t>(j % kPanel);
  const auto row = static_cast<std::size_t>(i);
  if (w.dtype == DType::kF32) {
    return static_cast<const float*>(w.data)[(panel * k + row) * kPanel + lane];
  }
  if (w.dtype == DType::kF8E4M3) {
    const auto value =
        from_e4m3(static_cast<const std::uint8_t*>(w.data)[(panel * k + row) * kPanel + lane]);
    const auto blocks = static_cast<std::size_t>(scale_blocks(w));
    const auto block = (row + static_cast<std::size_t>(w.scale_phase)) / 128;
    return value * (w.scales[(panel * blocks + block) * kPanel + lane] * 0x1p-120F);
  }
  const std::size_t pairs = (k + 1) / 2;
  const auto bits = static_cast<const std::uint16_t*>(
      w.data)[((panel * pairs + row / 2) * kPanel + lane) * 2 + row % 2];
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// E4M3 by its definition: sign, exponent with bias 7, fraction; exponent 0 has no hidden one.
double e4m3(unsigned bits) {
  const double sign = bits >= 128 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 3 & 15U);
  const double fraction = (bits & 7U) / 8.0;
  if ((bits & 127U) == 127U) return std::nan("");
  return exponent == 0 ? sign * std::ldexp(fraction, -6)
                       : sign * std::ldexp(1 + fraction, exponent - 7);
}

// A tensor [rows, columns] in FP8 with scales, and what it means.
struct Fp8Tensor {
  Fp8Tensor(int r, int c, DType scale_type, unsigned seed) : rows(r), columns(c) {
    std::mt19937 random(seed);
    bytes.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
    for (auto& byte : bytes) {
      unsigned bits = random() % 256;
      if ((bits & 127U) == 127U) bits ^= 1U;  // not a number
      byte = std::byte{static_cast<unsigned char>(bits)};
    }
    across = (columns + 127) / 128;
    const int count = (rows + 127) / 128 * across;
    for (int i = 0; i < count; ++i) {
      const int exponent = static_cast<int>(random() % 20) - 15;
      if (scale_type == DType::kF32) {
        const float scale =
            std::ldexp(1.0F + static_cast<float>(random() % 1000) / 1000.0F, exponent);
        values.push_back(scale);
        const auto at = scale_bytes.size();
        scale_bytes.resize(at + 4);
        std::memcpy(scale_bytes.data() + at, &scale, 4);
      } else {
        values.push_back(std::ldexp(1.0F, exponent));
        scale_bytes.push_back(std::byte{static_cast<unsigned char>(exponent + 127)});
      }
    }
    scales = {scale_bytes.data(), scale_type, 128, 128, columns};
  }

  float at(int row, int column) const {
    const auto bits = std::to_integer<unsigned>(
        bytes[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
              static_cast<std::size_t>(column)]);
    const float scale = values[static_cast<std::size_t>(row / 128 * across + column / 128)];
    return static_cast<float>(e4m3(bits)) * scale;
  }
  WeightPiece slice(int row, int n, int column, int k) const {
    return {.data = bytes.data(),
            .dtype = DType::kF8E4M3,
            .n_stride = columns,
            .k_stride = 1,
            .n = n,
            .k = k,
            .origin = std::int64_t{row} * columns + column,
            .scales = scales};
  }

  int rows;
  int columns;
  int across = 0;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // of the scales
  std::vector<std::byte> scale_bytes;
  BlockScales scales;
};

struct Packed {
  explicit Packed(const std::vector<WeightPiece>& pieces) {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    storage.assign(packed_bytes(shape.dtype, shape.n, shape.k), std::byte{0x55});
    matrix = pack(pieces, storage.data());
  }
  std::vector<std::byte> storage;
  PackedMatrix matrix;
};

TEST(Pack, EveryE4M3ValueIsExact) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    const double wanted = e4m3(bits);
    const float got = from_e4m3(static_cast<std::uint8_t>(bits));
    if (std::isnan(wanted)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(got), wanted) << bits;
      EXPECT_EQ(std::signbit(got), bits >= 128) << bits;
    }
  }
  EXPECT_EQ(from_e4m3(0x7e), 448.0F);
}

TEST(Pack, AnE8M0ScaleIsAPowerOfTwo) {
  EXPECT_EQ(from_e8m0(127), 1.0F);
  EXPECT_EQ(from_e8m0(0), 0x1p-127F);
  EXPECT_EQ(from_e8m0(254), 0x1p127F);
  EXPECT_TRUE(std::isnan(from_e8m0(255)));
}

TEST(Pack, ASliceOfFp8BlocksHasTheScalesOfItsBlocksWhereverItBegins) {
  unsigned seed = 0;
  for (const DType type : {DType::kF32, DType::kF8E8M0}) {
    // Blocks at the last row and column are cut short.
    const Fp8Tensor tensor(300, 450, type, ++seed);
    for (const auto& [row, n, column, k] :
         {std::array{0, 300, 0, 450}, {100, 64, 0, 450}, {127, 2, 127, 2}, {37, 200, 61, 389}}) {
      const Packed packed({tensor.slice(row, n, column, k)});
      ASSERT_EQ(packed.matrix.n, n);
      ASSERT_EQ(packed.matrix.dtype, DType::kF8E4M3);
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < k; ++i) {
          ASSERT_EQ(packed_at(packed.matrix, j, i), tensor.at(row + j, column + i))
              << row << "+" << j << ", " << column << "+" << i;
        }
      }
    }
  }
}

TEST(Pack, ATransposedSliceOfFp8BlocksHasTheSameValues) {
  const Fp8Tensor tensor(300, 450, DType::kF32, 3);
  WeightPiece piece = tensor.slice(90, 150, 40, 270);
  std::swap(piece.n, piece.k);
  std::swap(piece.n_stride, piece.k_stride);
  const Packed packed({piece});
  ASSERT_EQ(packed.matrix.dtype, DType::kF8E4M3);
  for (int j = 0; j < 270; ++j) {
    for (int i = 0; i < 150; ++i) {
      ASSERT_EQ(packed_at(packed.matrix, j, i), tensor.at(90 + i, 40 + j)) << j << ", " << i;
    }
  }
}

TEST(Pack, PiecesStandSideBySideWithZerosBetween) {
  const Fp8Tensor one(200, 131, DType::kF32, 4);
  const Fp8Tensor two(40, 131, DType::kF8E8M0, 5);
  const Packed packed({one.slice(5, 70, 0, 131), {.n = 26, .k = 131}, two.slice(0, 40, 0, 131)});
  ASSERT_EQ(packed.matrix.n, 136);
  for (int j = 0; j < 192; ++j) {
    for (int i = 0; i < 131; ++i) {
      float wanted = 0;
      if (j < 70) wanted = one.at(5 + j, i);
      if (j >= 96 && j < 136) wanted = two.at(j - 96, i);
      ASSERT_EQ(packed_at(packed.matrix, j, i), wanted) << j << ", " << i;
    }
  }
}

TEST(Pack, Fp8ThatAProductCannotTakeBecomesFp32) {
  Fp8Tensor tensor(200, 300, DType::kF32, 7);
  const auto other_phase = {tensor.slice(0, 10, 0, 150), tensor.slice(0, 10, 1, 150)};
  const auto expect_f32 = [&](const std::vector<WeightPiece>& pieces, int shift) {
    const Packed packed(pieces);
    ASSERT_EQ(packed.matrix.dtype, DType::kF32);
    for (int i = 0; i < 150; ++i) {
      EXPECT_EQ(packed_at(packed.matrix, 3, i), tensor.at(3, i));
      EXPECT_EQ(packed_at(packed.matrix, 13, i), tensor.at(3, i + shift));
    }
  };
  expect_f32(other_phase, 1);
  tensor.values[1] = 1000.0F;  // of columns 128 .. 255
  std::memcpy(tensor.scale_bytes.data() + 4, &tensor.values[1], 4);
  expect_f32({tensor.slice(0, 10, 0, 150), tensor.slice(0, 10, 0, 150)}, 0);
  // A scale that the piece does not use does no harm.
  EXPECT_EQ(Packed({tensor.slice(0, 10, 0, 128)}).matrix.dtype, DType::kF8E4M3);
}

TEST(Pack, AnFp8WeightThatIsNotANumberIsSeen) {
  for (const float scale : {1.0F, 1000.0F}) {  // packed as FP8, and as FP32
    Fp8Tensor tensor(130, 20, DType::kF32, 8);
    std::memcpy(tensor.scale_bytes.data(), &scale, 4);
    const std::vector<WeightPiece> pieces{tensor.slice(0, 130, 0, 20)};
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    std::vector<std::byte> storage(packed_bytes(shape.dtype, shape.n, shape.k));
    const PackedMatrix matrix = packed_matrix(pieces, storage.data());
    EXPECT_TRUE(pack_panels(pieces, matrix, 0, 3));
    tensor.bytes[70 * 20 + 19] = std::byte{0xff};
    EXPECT_TRUE(pack_panels(pieces, matrix, 0, 1));
    EXPECT_FALSE(pack_panels(pieces, matrix, 1, 2));
  }
}

TEST(Pack, Bf16StaysBf16AtAnyAlignmentAndInEitherOrder) {
  for (const int k : {1, 255, 256, 257, 600}) {
    std::vector<std::byte> bytes(1 + static_cast<std::size_t>(100 * k) * 2);
    std::mt19937 random(static_cast<unsigned>(k));
    for (auto& byte : bytes) byte = std::byte{static_cast<unsigned char>(random() % 120)};
    const auto at = [&](int row, int column) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + 1 + static_cast<std::size_t>(row * k + column) * 2, 2);
      const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
      float value = 0;
      std::memcpy(&value, &wide, sizeof value);
      return value;
    };
    WeightPiece piece{bytes.data() + 1, DType::kBF16, k, 1, 100, k};
    const Packed packed({piece});
    ASSERT_EQ(packed.matrix.dtype, DType::kBF16);
    for (int j = 0; j < 100; ++j) {
      for (int i = 0; i < k; ++i) ASSERT_EQ(packed_at(packed.matrix, j, i), at(j, i));
    }
    std::swap(piece.n, piece.k);
    std::swap(piece.n_stride, piece.k_stride);
    const Packed transposed({piece});
    for (int j = 0; j < k; ++j) {
      for (int i = 0; i < 100; ++i) ASSERT_EQ(packed_at(transposed.matrix, j, i), at(i, j));
    }
  }
}

TEST(Pack, ConvertsHalfPrecisionExactly) {
  // 1, -2, the largest, the smallest normal, the smallest subnormal, -0.
  const std::uint16_t bits[] = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000};
  float values[6];
  to_float(reinterpret_cast<const std::byte*>(bits), DType::kF16, 6, values);
  EXPECT_EQ(values[0], 1.0F);
  EXPECT_EQ(values[1], -2.0F);
  EXPECT_EQ(values[2], 65504.0F);
  EXPECT_EQ(values[3], 0x1p-14F);
  EXPECT_EQ(values[4], 0x1p-24F);
  EXPECT_TRUE(std::signbit(values[5]));
}

TEST(Pack, PanelsPackedApartAreTheMatrixPackedWhole) {
  const Fp8Tensor tensor(300, 140, DType::kF32, 6);
  const std::vector<WeightPiece> pieces{tensor.slice(3, 250, 1, 139)};
  const Packed whole(pieces);
  std::vector<std::byte> storage(whole.storage.size(), std::byte{0x55});
  const PackedMatrix parts = packed_matrix(pieces, storage.data());
  EXPECT_TRUE(pack_panels(pieces, parts, 2, 4));
  EXPECT_TRUE(pack_panels(pieces, parts, 0, 1));
  EXPECT_TRUE(pack_panels(pieces, parts, 1, 2));
  EXPECT_EQ(storage, whole.storage);
}

}  // namespace
}  // namespace dsm::kernels
