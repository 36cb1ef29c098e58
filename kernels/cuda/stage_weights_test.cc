// How lanes take weights of each type from a stage in shared memory, on the CPU.
#include "kernels/cuda/stage_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kTensorColumns = 700;  // of the tensor of which a matrix is a part

// A packed matrix of 64 columns and its memory.
struct Packed {
  std::vector<std::byte> storage;
  PackedMatrix w;

  explicit Packed(const WeightPiece& piece)
      : storage(packed_bytes(packed_dtype({&piece, 1}), piece.n, piece.k) + 64) {
    void* at = storage.data();
    std::size_t space = storage.size();
    std::align(64, space - 64, at, space);
    w = pack({&piece, 1}, at);
  }
};

// Inputs [first, first + k).
Packed packed(DType dtype, int first, int k) {
  if (dtype == DType::kF8E4M3) {
    std::mt19937 random(3);
    std::vector<std::byte> bytes(std::size_t{kPanel} * kTensorColumns);
    for (auto& byte : bytes) byte = std::byte(random() & 0xbfU);
    const auto scales = random_floats(kTensorColumns / 128 + 1, 4, 0.01F);
    return Packed({bytes.data(),
                   dtype,
                   kTensorColumns,
                   1,
                   kPanel,
                   k,
                   first,
                   {reinterpret_cast<const std::byte*>(scales.data()), DType::kF32, 128, 128,
                    kTensorColumns}});
  }
  const auto values = random_floats(std::size_t{kPanel} * kTensorColumns, 5);
  WeightPiece piece{reinterpret_cast<const std::byte*>(values.data()),
                    DType::kF32,
                    kTensorColumns,
                    1,
                    kPanel,
                    k,
                    first};
  if (dtype != DType::kBF16) {
    piece.round_to = dtype;
    return Packed(piece);
  }
  std::vector<std::uint16_t> halves(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[i], 4);
    halves[i] = static_cast<std::uint16_t>(bits >> 16);
  }
  piece.data = reinterpret_cast<const std::byte*>(halves.data());
  piece.dtype = DType::kBF16;
  return Packed(piece);
}

// [k, 64] as the CPU's product has them: what a row that is one in one input gives.
std::vector<float> values_of(const PackedMatrix& w) {
  const auto k = static_cast<std::size_t>(w.k);
  std::vector<float> x(k * k);
  for (std::size_t i = 0; i < k; ++i) x[i * k + i] = 1;
  std::vector<float> y(k * kPanel);
  available_ops()[0]->linear(
      {.x = x.data(), .ldx = w.k, .w = &w, .y = y.data(), .ldy = kPanel, .rows = w.k}, 0, 0, w.k,
      0);
  return y;
}

// A stage as copies bring it.
template <DType kType>
struct Stage {
  using Layout = StageLayout<kType>;
  alignas(8) unsigned char pieces[Layout::kPanelBytes];
  float scales[kPanel] = {};

  Stage(const PackedMatrix& w, int number) {
    std::ranges::fill(pieces, 0xff);
    const int first = number * Layout::kStageLines;
    for (int piece = 0; piece < kPieces; ++piece) {
      const int lines = Layout::lines_of_piece(Layout::lines_of(w) - first, piece);
      if (lines == 0) continue;
      std::memcpy(pieces + piece * Layout::kPieceBytes,
                  static_cast<const unsigned char*>(w.data) +
                      (first + piece * Layout::kPieceLines) * Layout::kLineBytes,
                  static_cast<std::size_t>(lines) * Layout::kLineBytes);
    }
    if (!Layout::kScaled) return;
    std::memcpy(scales, w.scales + scales_of_stage(w, number) * kPanel, sizeof scales);
  }
};

template <DType kType, int kColumns>
void expect_values(int first, int k) {
  using Layout = StageLayout<kType>;
  const Packed of = packed(kType, first, k);
  ASSERT_EQ(of.w.dtype, kType);
  ASSERT_TRUE(takes_wide(of.w));
  const auto wanted = values_of(of.w);
  // Rounded once, and a little for the scale's two terms.
  const float share = kType == DType::kBF16 ? 0 : 0x1p-8F * (1 + 0x1p-6F);
  for (int number = 0; number < wide_stages(of.w); ++number) {
    const Stage<kType> stage(of.w, number);
    for (int piece = 0; piece < kPieces; ++piece) {
      for (int column = 0; column < kPanel; column += kColumns) {
        const PieceColumns<kType, kColumns> lane(
            stage.pieces + piece * Layout::kPieceBytes + column * Layout::kColumnBytes,
            stage.scales + column);
        for (int pair = 0; pair < kPiecePairs; ++pair) {
          const auto words = lane.pair(pair);
          for (int i = 0; i < 2 * kColumns; ++i) {
            const int input = (number * kStagePairs + piece * kPiecePairs + pair) * 2 + i % 2;
            if (input >= k) continue;
            const std::uint32_t word = words.v[i / 2];
            const float got = i % 2 == 0 ? first_of(word) : second_of(word);
            const float exact = wanted[static_cast<std::size_t>(input) * kPanel +
                                       static_cast<std::size_t>(column + i / 2)];
            ASSERT_LE(std::abs(got - exact), share * std::abs(exact))
                << "input " << input << " column " << column + i / 2 << " of " << k << " from "
                << first << ": " << got << " " << exact;
          }
        }
      }
    }
  }
}

template <DType kType>
void expect_type() {
  for (const int first : {0, 192}) {
    for (const int k : {1, 7, 90, 131, 200}) {
      expect_values<kType, 1>(first, k);
      expect_values<kType, 2>(first, k);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(CudaStageWeightsTest, LanesTakeBf16AsItIs) {
  expect_type<DType::kBF16>();
}
TEST(CudaStageWeightsTest, LanesTakeFp8TimesItsScales) {
  expect_type<DType::kF8E4M3>();
}
TEST(CudaStageWeightsTest, LanesTakeInt8TimesItsScales) {
  expect_type<DType::kInt8>();
}
TEST(CudaStageWeightsTest, LanesTakeInt4TimesItsScales) {
  expect_type<DType::kInt4>();
}

TEST(CudaStageWeightsTest, AStageLiesInOneBlockOfScales) {
  EXPECT_TRUE(takes_wide({.dtype = DType::kInt8, .k = 300}));
  EXPECT_TRUE(takes_wide({.dtype = DType::kInt4, .k = 300, .scale_phase = 64}));
  EXPECT_FALSE(takes_wide({.dtype = DType::kInt4, .k = 300, .scale_phase = 32}));
  EXPECT_FALSE(takes_wide({.dtype = DType::kF8E4M3, .k = 300, .scale_phase = 77}));
  EXPECT_FALSE(takes_wide({.dtype = DType::kF32, .k = 300}));
  EXPECT_TRUE(takes_wide({.dtype = DType::kBF16, .k = 300}));
}

// Words that lanes [begin, end) of a warp, whose column is 8 or 16 neighbours', load at once.
template <DType kType, int kColumns>
void expect_banks(int begin, int end) {
  using Layout = StageLayout<kType>;
  std::set<int> words;
  for (int lane = begin; lane < end; ++lane) {
    const int at = lane % 4 * Layout::kPieceBytes + lane / 4 * kColumns * Layout::kColumnBytes;
    for (int byte = 0; byte < kColumns * Layout::kColumnBytes; ++byte) {
      words.insert((at + byte) / 4);
    }
  }
  std::set<int> banks;
  for (const int word : words) banks.insert(word % 32);
  EXPECT_EQ(banks.size(), words.size()) << "type " << static_cast<int>(kType);
}

TEST(CudaStageWeightsTest, LanesLoadFromDifferentBanks) {
  expect_banks<DType::kBF16, 1>(0, 32);
  expect_banks<DType::kInt8, 1>(0, 32);
  expect_banks<DType::kInt4, 1>(0, 32);
  expect_banks<DType::kF8E4M3, 1>(0, 32);
  expect_banks<DType::kF8E4M3, 2>(0, 32);
  for (const int begin : {0, 16}) {  // of 8 bytes a lane, half a warp at once
    expect_banks<DType::kBF16, 2>(begin, begin + 16);
    expect_banks<DType::kInt8, 2>(begin, begin + 16);
    expect_banks<DType::kInt4, 2>(begin, begin + 16);
  }
}

}  // namespace
}  // namespace dsm::kernels::cuda
