// How lanes take weights of each type from a stage in shared memory, on the CPU.
#include "kernels/cuda/stage_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "kernels/cuda/stage_fixture.h"
#include "kernels/ops.h"

namespace dsm::kernels::cuda {
namespace {

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
