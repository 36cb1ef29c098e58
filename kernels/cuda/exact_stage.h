// The operands of product_exact.cu in the order of product.cuh, so that a tensor core adds up the
// same inputs in the same steps and slots: what a row's 64 inputs are in shared memory, and which
// of a panel's stage (stage_weights.h) a lane takes.
//
// A slot of product.cuh's operands (fragments.h) stands for: of lane 4g + q slots 2q, 2q + 1 for
// the first two of its four inputs of a step, and 2q + 8, 2q + 9 for the others. Those four are 4q
// .. 4q + 3 of the step's 16; in INT4, where a word is for two steps, 8q .. 8q + 3 of 32, or 4
// further.
//
// Functions of one lane, so that a test on the CPU can be all of them.
#pragma once

#include <cstdint>

#include "kernels/cuda/fragments.h"
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/stage_weights.h"
#include "kernels/cuda/wide_rows.h"

namespace dsm::kernels::cuda {

inline constexpr int kWideSteps = kWideInputs / kStepInputs;
// Activations are two BF16 terms, value and remainder, each a unit of rows (wide_rows.h).
inline constexpr int kExactTerms = 2;
inline constexpr int kExactRows = kUnitRows;

// Whether the kernel takes the weights: splits are pairs of stages.
constexpr bool takes_exact(const PackedMatrix& w) {
  return (w.dtype == DType::kBF16 || has_scales(w)) && w.scale_phase == 0;
}

// The input of a stage that slot `slot` of step `step` stands for; an even slot's neighbour is the
// next one's.
template <bool kInt4>
DSM_HOST_DEVICE int exact_input(int step, int slot) {
  const int q = slot % 8 / 2;
  const int of_lane = slot / 8 * 2 + slot % 2;
  return kInt4 ? step / 2 * kPairInputs + q * 8 + step % 2 * 4 + of_lane
               : step * kStepInputs + q * 4 + of_lane;
}

// A panel's stage as StageLayout has it, but that lines are moved apart in the middle of what lanes
// 4g + q of one g read at a time: those of half of the q stand on other banks.
template <DType kType>
struct ExactLayout : StageLayout<kType> {
  using Base = StageLayout<kType>;
  static constexpr int kParts = kType == DType::kBF16 || kType == DType::kInt8 ? 2 : 1;
  static constexpr int kPartBytes = Base::kPieceLines / kParts * Base::kLineBytes + 64;
  static constexpr int kPieceBytes = kParts * kPartBytes;
  static constexpr int kPanelBytes = kPieces * kPieceBytes;
};

// A lane's operands A of a stage: lines g are a column of a panel, lines g + 8 the next one.
struct ExactWeights {
  std::uint32_t v[kWideSteps][4];
};

// How a lane takes them from a panel's stage in shared memory: where it begins, and in which order
// it loads words of its two columns: lanes of odd q begin with the second, and so stand on other
// banks than their neighbours.
template <DType kType>
struct ExactLane {
  using Layout = ExactLayout<kType>;
  static constexpr int kPartLines = Layout::kPieceLines / Layout::kParts;
  static constexpr int kSteps = kType == DType::kInt4 ? 2 : 1;  // that a lane's lines are for
  static constexpr int kLines = kPieceInputs * kSteps / 4 / Layout::kLineInputs;
  static constexpr int kApart = kSteps * Layout::kPieceBytes;  // from those to the next
  int first;                                                   // bytes
  int second;
  bool odd;
  int input;  // the lane's first of the first steps

  // `column` is even.
  static DSM_HOST_DEVICE ExactLane of(int q, int column) {
    const int line = q * kLines;
    const int at = line / kPartLines * Layout::kPartBytes + line % kPartLines * Layout::kLineBytes +
                   column * Layout::kColumnBytes;
    const bool odd = q % 2 != 0;
    return {odd ? at + 4 : at, odd ? at : at + 4, odd, line * Layout::kLineInputs};
  }

  DSM_HOST_DEVICE void words(const unsigned char* panel, int offset, std::uint32_t& even_column,
                             std::uint32_t& odd_column) const {
    const auto a = *reinterpret_cast<const std::uint32_t*>(panel + first + offset);
    const auto b = *reinterpret_cast<const std::uint32_t*>(panel + second + offset);
    even_column = odd ? b : a;
    odd_column = odd ? a : b;
  }
};

// `panel`: a stage as it stands in shared memory; `left`: inputs of the stage that are there, all
// if more. Past them operands are some numbers, which meet zeros in rows, but those in BF16, which
// might be none, are zero.
template <DType kType>
DSM_HOST_DEVICE void load_exact(const unsigned char* panel, const ExactLane<kType>& lane,
                                [[maybe_unused]] int left, ExactWeights& to) {
  using Lane = ExactLane<kType>;
  using Layout = ExactLayout<kType>;
  if constexpr (kType == DType::kF8E4M3) {
    const unsigned char* from = panel + (lane.odd ? lane.second : lane.first);
    for (int step = 0; step < kWideSteps; ++step) {
      std::uint32_t both[4];  // columns' bytes of an input
      for (int i = 0; i < 4; ++i) {
        both[i] = *reinterpret_cast<const std::uint16_t*>(from + step * Layout::kPieceBytes +
                                                          i * Layout::kLineBytes);
      }
      for (int i = 0; i < 4; ++i) {
        to.v[step][i] =
            bf16_pair_of_e4m3(both[i / 2 * 2], both[i / 2 * 2 + 1], static_cast<unsigned>(i % 2));
      }
    }
  } else {
    for (int step = 0; step < kWideSteps; step += Lane::kSteps) {
      for (int i = 0; i < Lane::kLines; ++i) {
        std::uint32_t of[2];
        lane.words(panel, step / Lane::kSteps * Lane::kApart + i * Layout::kLineBytes, of[0],
                   of[1]);
        for (int c = 0; c < 2; ++c) {
          if constexpr (kType == DType::kBF16) {
            to.v[step][i * 2 + c] = of[c];
          } else {
            constexpr int kPairBits = kType == DType::kInt8 ? 8 : 4;
            for (int pair = 0; pair < 2 * Lane::kSteps; ++pair) {
              to.v[step + pair / 2][pair % 2 * 2 + c] =
                  bf16_pair_of_word<kType>(of[c] >> (kPairBits * pair));
            }
          }
        }
      }
    }
  }
  if (kType == DType::kBF16 && left < kWideInputs) {
    for (int step = 0; step < kWideSteps; ++step) {
      for (int i = 0; i < 4; ++i) {
        if (step * kStepInputs + lane.input + i / 2 * 2 >= left) to.v[step][i] = 0;
      }
    }
  }
}

// What the sums of a column are multiplied by besides its scale.
template <DType kType>
inline constexpr float kExactFactor = kType == DType::kF8E4M3 ? 0x1p-120F : 1.0F;  // params.h

}  // namespace dsm::kernels::cuda
