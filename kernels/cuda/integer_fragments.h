// Operand B of a tensor core's product (fragments.h) taken from panels in INT8 and INT4, as BF16,
// exactly. A lane has 16 bytes of a row of words at a time: four columns with the 4 or 8 inputs of
// their words. Words begin `lead` inputs before the panel's input 0 (kernels::PackedMatrix), so
// `at` may be negative; activations there count as zeros.
//
// Functions of the lane's number, so that a test on the CPU can be all 32 lanes.
#pragma once

#include "kernels/cuda/fragments.h"

namespace dsm::kernels::cuda {

// The 8-bit integers in bytes 0 and 2 of a word as two BF16 values: 128 and the low 7 bits, less
// 128, or 256 where the integer is negative.
DSM_HOST_DEVICE std::uint32_t bf16_pair_of_int8(std::uint32_t word) {
  return sum_of_bf16_pairs((word & 0x007f007fU) | 0x43004300U, (word & 0x00800080U) | 0xc300c300U);
}

// The 4-bit integers in the lowest bits of both halves of a word, each plus 8, as two BF16 values.
DSM_HOST_DEVICE std::uint32_t bf16_pair_of_int4(std::uint32_t word) {
  return sum_of_bf16_pairs((word & 0x000f000fU) | 0x43004300U, 0xc308c308U);  // less 136
}

// Row of words number `row` of a panel [words][64]: this lane's columns of a half of the panel.
DSM_HOST_DEVICE Four<std::uint32_t> load_words(const std::uint32_t* panel, int row, int half,
                                               int lane) {
  return load_four(panel + static_cast<std::int64_t>(row) * kPanel + half * 32 + lane / 4 * 4);
}

// A lane's words of a step in INT8, as they stand in memory: one for each of its columns.
struct Int8Words {
  Four<std::uint32_t> half[2];
};

// Inputs [at, at + 16) of a panel in INT8, zero from `end` on unless kWhole says that none is
// beyond it; at + lead is a multiple of 4.
template <bool kWhole = false>
DSM_HOST_DEVICE Int8Words load_int8(const std::uint32_t* panel, int lead, int at, int end,
                                    int lane) {
  const int first = at + lane % 4 * 4;
  Int8Words words = {};
  for (int half = 0; half < 2; ++half) {
    if (kWhole || first < end) {
      words.half[half] = load_words(panel, (first + lead) / 4, half, lane);
    }
  }
  return words;
}

DSM_HOST_DEVICE FragmentB operand(const Int8Words& words) {
  FragmentB b;
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 4; ++j) {
      for (int p = 0; p < 2; ++p) {
        b.v[half * 4 + j][p] = bf16_pair_of_int8(words.half[half].v[j] >> (8 * p));
      }
    }
  }
  return b;
}

// In INT4 a word is enough for two steps: of 32 inputs [at, at + 32) lane 4g + q has 8q .. 8q + 7,
// the lower four of them for the first step.
inline constexpr int kPairInputs = 2 * kStepInputs;

struct Int4Words {
  Four<std::uint32_t> half[2];
};

// at + lead is a multiple of 8. Where no input is there activations are zero, so any weight will
// do. kWhole as above.
template <bool kWhole = false>
DSM_HOST_DEVICE Int4Words load_int4(const std::uint32_t* panel, int lead, int at, int end,
                                    int lane) {
  const int first = at + lane % 4 * 8;
  Int4Words words = {};
  if (kWhole || first < end) {
    for (int half = 0; half < 2; ++half) {
      words.half[half] = load_words(panel, (first + lead) / 8, half, lane);
    }
  }
  return words;
}

DSM_HOST_DEVICE FragmentB int4_operand(const Int4Words& words, int step) {
  FragmentB b;
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 4; ++j) {
      for (int p = 0; p < 2; ++p) {
        b.v[half * 4 + j][p] = bf16_pair_of_int4(words.half[half].v[j] >> (4 * (2 * step + p)));
      }
    }
  }
  return b;
}

// The first of the lane's four inputs of that step.
DSM_HOST_DEVICE int int4_input(int at, int step, int lane) {
  return at + lane % 4 * 8 + step * 4;
}

}  // namespace dsm::kernels::cuda
