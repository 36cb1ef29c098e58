// Weights of the products for many rows (product_wide.cu, product_paired.cu) in shared memory, and
// how a lane takes registers of operand A from them: pairs of neighbouring inputs of a column, in
// BF16. A stage is 64 inputs of a panel as the panel has them, in four pieces, one for the lanes
// 4g + q of each q. A piece is 16 inputs, so 8 pairs: lines of all 64 columns, in BF16 of a pair
// each, of integers a row of words, in FP8 an input. 32 bytes more from one piece to the next keep
// lanes on different banks.
//
// Types other than BF16 bring the scales of the stage's columns along. A weight is its number times
// its scale, rounded to BF16 once: the scale is two BF16 terms, so that a product and a fused
// multiply-add of pairs do it.
//
// Functions of one lane, so that a test on the CPU can be all of them.
#pragma once

#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/splits.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

inline constexpr int kPieces = 4;
inline constexpr int kStagePairs = kWideInputs / 2;
inline constexpr int kPiecePairs = kStagePairs / kPieces;
inline constexpr int kPieceInputs = 2 * kPiecePairs;

// Whether these products take the weights: a stage lies in one block of scales, and begins where
// words do.
constexpr bool takes_wide(const PackedMatrix& w) {
  if (w.dtype == DType::kBF16) return true;
  return has_scales(w) && w.scale_phase % kWideInputs == 0;
}

template <DType kType>
struct StageLayout {
  static constexpr bool kScaled = kType != DType::kBF16;
  static constexpr int kLineInputs = kType == DType::kBF16     ? 2
                                     : kType == DType::kF8E4M3 ? 1
                                                               : inputs_per_word(kType);
  // Of a column in a line.
  static constexpr int kColumnBytes = kType == DType::kF8E4M3 ? 1 : 4;
  static constexpr int kLineBytes = kPanel * kColumnBytes;
  static constexpr int kPieceLines = kPieceInputs / kLineInputs;
  static constexpr int kStageLines = kPieces * kPieceLines;
  // A piece is copied as it is.
  static constexpr int kParts = 1;
  static constexpr int kPartBytes = kPieceLines * kLineBytes + 32;
  static constexpr int kPieceBytes = kParts * kPartBytes;
  static constexpr int kPanelBytes = kPieces * kPieceBytes;
  // Of a panel in a stage.
  static constexpr int kScaleBytes = kScaled ? kPanel * 4 : 0;

  static DSM_HOST_DEVICE int lines_of(const PackedMatrix& w) {
    return (w.k + kLineInputs - 1) / kLineInputs;
  }
  // Lines of a piece that there are, of the `left` from the stage's first on.
  static DSM_HOST_DEVICE int lines_of_piece(int left, int piece) {
    const int lines = left - piece * kPieceLines;
    return lines < 0 ? 0 : lines < kPieceLines ? lines : kPieceLines;
  }
};

// The block of scales in which a stage lies.
DSM_HOST_DEVICE int scales_of_stage(const PackedMatrix& w, int stage) {
  return (w.scale_phase + stage * kWideInputs) / kScaleBlock;
}

// A column's scale, twice, for both inputs of a pair: the nearest BF16 value, and of what that
// leaves.
struct PairScale {
  std::uint32_t high;
  std::uint32_t low;

  static DSM_HOST_DEVICE PairScale of(float scale) {
    const std::uint32_t high = bf16_pair(scale, scale);
    const float left = scale - first_of(high);
    return {high, bf16_pair(left, left)};
  }
  DSM_HOST_DEVICE std::uint32_t times(std::uint32_t pair) const {
    return fma_of_bf16_pairs(pair, high, fma_of_bf16_pairs(pair, low, 0x80008000U));
  }
};

// What a lane takes of a piece: pairs 0 .. 7 of kColumns neighbours, of which the first stands at
// `from`; `scales` are theirs. A pair that is not there gives some number, of which the caller
// makes zero.
template <DType kType, int kColumns>
struct PieceColumns;

template <int kColumns>
struct LaneWords {
  std::uint32_t v[kColumns];
};
// The address is a multiple of their size.
template <int kColumns>
DSM_HOST_DEVICE LaneWords<kColumns> load_words_of(const unsigned char* from) {
  if constexpr (kColumns == 1) {
    return {*reinterpret_cast<const std::uint32_t*>(from)};
  } else {
    static_assert(kColumns == 2);
    const auto both = *reinterpret_cast<const std::uint64_t*>(from);  // one load
    return {static_cast<std::uint32_t>(both), static_cast<std::uint32_t>(both >> 32)};
  }
}

template <int kColumns>
struct PieceColumns<DType::kBF16, kColumns> {
  const unsigned char* from;

  DSM_HOST_DEVICE PieceColumns(const unsigned char* piece, const float* /*scales*/) : from(piece) {}
  DSM_HOST_DEVICE LaneWords<kColumns> pair(int i) const {
    return load_words_of<kColumns>(from + i * StageLayout<DType::kBF16>::kLineBytes);
  }
};

// bf16_pair_of_int8() and bf16_pair_of_int4() of integer_fragments.h with fewer instructions, whose
// constants take registers, of which the kernels for few rows have none left.
template <DType kType>
DSM_HOST_DEVICE std::uint32_t bf16_pair_of_word(std::uint32_t word) {
  if constexpr (kType == DType::kInt8) {
    return sum_of_bf16_pairs(with_bits(word, 0x007f007fU, 0x43004300U),
                             with_bits(word, 0x00800080U, 0xc300c300U));
  } else {
    return sum_of_bf16_pairs(with_bits(word, 0x000f000fU, 0x43004300U), 0xc308c308U);
  }
}

// Integers, of which all words are loaded at the beginning.
template <DType kType, int kColumns>
struct PieceColumns {
  using Layout = StageLayout<kType>;
  LaneWords<kColumns> line[Layout::kPieceLines];
  PairScale scale[kColumns];

  DSM_HOST_DEVICE PieceColumns(const unsigned char* piece, const float* scales) {
    for (int i = 0; i < Layout::kPieceLines; ++i) {
      line[i] = load_words_of<kColumns>(piece + i * Layout::kLineBytes);
    }
    for (int c = 0; c < kColumns; ++c) scale[c] = PairScale::of(scales[c]);
  }
  DSM_HOST_DEVICE LaneWords<kColumns> pair(int i) const {
    constexpr int kPairs = Layout::kLineInputs / 2;
    LaneWords<kColumns> out;
    for (int c = 0; c < kColumns; ++c) {
      const int bits = 32 / Layout::kLineInputs * (i % kPairs);
      out.v[c] = scale[c].times(bf16_pair_of_word<kType>(line[i / kPairs].v[c] >> bits));
    }
    return out;
  }
};

// FP8: scales have the factor that the values lack (small_bf16_pair_of_e4m3).
template <int kColumns>
struct PieceColumns<DType::kF8E4M3, kColumns> {
  static_assert(kColumns <= 2);
  const unsigned char* from;
  PairScale scale[kColumns];

  DSM_HOST_DEVICE PieceColumns(const unsigned char* piece, const float* scales) : from(piece) {
    for (int c = 0; c < kColumns; ++c) scale[c] = PairScale::of(scales[c]);
  }
  DSM_HOST_DEVICE std::uint32_t bytes(int input) const {
    const unsigned char* line = from + input * StageLayout<DType::kF8E4M3>::kLineBytes;
    if constexpr (kColumns == 1) return *line;
    return *reinterpret_cast<const std::uint16_t*>(line);
  }
  DSM_HOST_DEVICE LaneWords<kColumns> pair(int i) const {
    const std::uint32_t first = bytes(2 * i);
    const std::uint32_t second = bytes(2 * i + 1);
    LaneWords<kColumns> out;
    for (int c = 0; c < kColumns; ++c) {
      out.v[c] = scale[c].times(small_bf16_pair_of_e4m3(first, second, static_cast<unsigned>(c)));
    }
    return out;
  }
};

}  // namespace dsm::kernels::cuda
