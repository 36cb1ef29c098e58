// The operands of a tensor core's product, D[16 x 8] += A[16 x 16] B[16 x 8] (PTX mma.m16n8k16),
// taken from activations in FP32 and from packed panels (kernels::PackedMatrix).
//
// Of the 32 lanes that hold an operand together let g = lane / 4 and q = lane % 4. By PTX
//   A: registers 0 .. 3 hold rows g, g + 8, g, g + 8; slots 2q, 2q + 1 (0, 1) or 2q + 8, 2q + 9
//   B: registers 0, 1 hold column g, the same slots
//   D: registers 0, 1 hold row g, columns 2q, 2q + 1; registers 2, 3 the same of row g + 8.
// Which input a slot stands for, and which column of the panel a column of B, is free as long as
// both sides agree. Here the slots of a lane stand for the inputs 4q .. 4q + 3 of the step, and
// column g of product j for the column 32 (j / 4) + 4g + j % 4 of the panel. So a lane loads four
// neighbouring activations, four neighbouring weights of an input (or of a pair), and stores four
// neighbouring sums; a step of 8 products takes 16 inputs of all 64 columns.
//
// With FP8 on both sides (mma.m16n8k32) a register has four slots, 4q .. 4q + 3 or 4q + 16 .. 4q +
// 19; a lane's stand for the inputs 8q .. 8q + 7 of a step of 32, columns and sums are the same.
//
// Functions of the lane's number, so that a test on the CPU can be all 32 lanes.
#pragma once

#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/params.h"

namespace dsm::kernels::cuda {

inline constexpr int kStepInputs = 16;
inline constexpr int kFp8StepInputs = 32;
inline constexpr int kTileRows = 16;
inline constexpr int kProducts = kPanel / 8;

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T v[4];
};

// Four neighbours. The address is a multiple of their size.
template <class T>
DSM_HOST_DEVICE Four<T> load_four(const T* from) {
  return *reinterpret_cast<const Four<T>*>(from);
}

// Words of a weight. `once`: by one thread block in all of the launch, so they need not stay in
// caches, where activations and the KV cache may.
DSM_HOST_DEVICE std::uint32_t load_weights(const std::uint32_t* from, [[maybe_unused]] bool once) {
#if defined(__CUDA_ARCH__)
  return once ? __ldcs(from) : *from;
#else
  return *from;
#endif
}
DSM_HOST_DEVICE Four<std::uint32_t> load_four_weights(const std::uint32_t* from,
                                                      [[maybe_unused]] bool once) {
#if defined(__CUDA_ARCH__)
  const uint4* four = reinterpret_cast<const uint4*>(from);
  const uint4 v = once ? __ldcs(four) : *four;
  return {{v.x, v.y, v.z, v.w}};
#else
  return load_four(from);
#endif
}

struct FragmentA {
  std::uint32_t v[4];
};
struct FragmentB {
  std::uint32_t v[kProducts][2];
};

// An operand A that stands in memory as 16 bytes of each lane (CUDA's uint4).
template <class Words>
DSM_HOST_DEVICE FragmentA fragment_of(const Words& words) {
  return {{words.x, words.y, words.z, words.w}};
}

// Rows g and g + 8 of a step's activations.
struct Activations {
  float v[2][4];
};

// A lane's four inputs, from `first` on. A row that is null counts as zeros, and so do inputs
// before 0 and from `end` on. `wide`: rows and `first` are multiples of four values, so that four
// can be loaded at a time.
DSM_HOST_DEVICE Activations load_activations(const float* row, const float* row_below, int first,
                                             int end, bool wide) {
  const float* const rows[2] = {row, row_below};
  Activations x;
  for (int r = 0; r < 2; ++r) {
    if (rows[r] != nullptr && wide && first >= 0 && first + 4 <= end) {
      const Four<float> four = load_four(rows[r] + first);
      for (int i = 0; i < 4; ++i) x.v[r][i] = four.v[i];
    } else {
      for (int i = 0; i < 4; ++i) {
        const bool there = rows[r] != nullptr && first + i >= 0 && first + i < end;
        x.v[r][i] = there ? rows[r][first + i] : 0.0F;
      }
    }
  }
  return x;
}

// The same where all four are there and can be loaded at a time.
DSM_HOST_DEVICE Activations load_whole_activations(const float* row, const float* row_below,
                                                   int first) {
  const float* const rows[2] = {row, row_below};
  Activations x;
  for (int r = 0; r < 2; ++r) {
    Four<float> four = {};
    if (rows[r] != nullptr) four = load_four(rows[r] + first);
    for (int i = 0; i < 4; ++i) x.v[r][i] = four.v[i];
  }
  return x;
}

// The activations rounded to BF16.
DSM_HOST_DEVICE FragmentA rounded(const Activations& x) {
  return {{bf16_pair(x.v[0][0], x.v[0][1]), bf16_pair(x.v[1][0], x.v[1][1]),
           bf16_pair(x.v[0][2], x.v[0][3]), bf16_pair(x.v[1][2], x.v[1][3])}};
}

// What rounding has left, rounded: with it 16 bits of an activation's fraction go into the product.
DSM_HOST_DEVICE FragmentA remainder(const Activations& x, const FragmentA& high) {
  Activations left;
  for (int r = 0; r < 2; ++r) {
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t pair = high.v[r + i / 2 * 2];
      left.v[r][i] = x.v[r][i] - (i % 2 == 0 ? first_of(pair) : second_of(pair));
    }
  }
  return rounded(left);
}

// Rows as operand A, in as many BF16 terms as take part.
template <int kTerms>
struct RowOperand {
  FragmentA term[kTerms];
};
template <int kTerms>
DSM_HOST_DEVICE RowOperand<kTerms> row_operand(const Activations& x) {
  RowOperand<kTerms> a;
  a.term[0] = rounded(x);
  if constexpr (kTerms == 2) a.term[1] = remainder(x, a.term[0]);
  return a;
}

// `panel`: [pairs of inputs][64] of BF16 pairs. Inputs [at, at + 16) of them, zero from `end` on
// unless kWhole says that none is beyond it; at is even.
template <bool kWhole = false>
DSM_HOST_DEVICE FragmentB load_bf16(const std::uint32_t* panel, int at, int end, int lane,
                                    bool once = false) {
  FragmentB b;
  for (int p = 0; p < 2; ++p) {
    const int pair = at / 2 + lane % 4 * 2 + p;
    const bool there =
        kWhole || pair * 2 < end;  // the last pair of an odd number is padded with zero
    for (int half = 0; half < 2; ++half) {
      Four<std::uint32_t> four = {};
      if (there) {
        four = load_four_weights(
            panel + static_cast<std::int64_t>(pair) * kPanel + half * 32 + lane / 4 * 4, once);
      }
      for (int i = 0; i < 4; ++i) b.v[half * 4 + i][p] = four.v[i];
    }
  }
  return b;
}

// Weights in FP8 as they stand in memory: of each of a lane's inputs four neighbouring columns, and
// the four that are 32 further.
template <int kInputs>
struct Fp8Words {
  std::uint32_t v[2][kInputs];
};

// `panel`: [inputs][64] of FP8 values. The lane's of the step at `at`, zero from `end` on, as
// above.
template <int kInputs, bool kWhole = false>
DSM_HOST_DEVICE Fp8Words<kInputs> load_e4m3(const std::uint8_t* panel, int at, int end, int lane,
                                            bool once = false) {
  Fp8Words<kInputs> words;
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < kInputs; ++i) {
      const int input = at + lane % 4 * kInputs + i;
      const std::uint8_t* from =
          panel + static_cast<std::int64_t>(input) * kPanel + half * 32 + lane / 4 * 4;
      words.v[half][i] = kWhole || input < end
                             ? load_weights(reinterpret_cast<const std::uint32_t*>(from), once)
                             : 0;
    }
  }
  return words;
}

// A step of 16 inputs, as BF16.
DSM_HOST_DEVICE FragmentB operand(const Fp8Words<4>& words) {
  FragmentB b;
  for (int half = 0; half < 2; ++half) {
    for (unsigned j = 0; j < 4; ++j) {
      for (int p = 0; p < 2; ++p) {
        b.v[half * 4 + j][p] = bf16_pair_of_e4m3(words.v[half][2 * p], words.v[half][2 * p + 1], j);
      }
    }
  }
  return b;
}
DSM_HOST_DEVICE const FragmentB& operand(const FragmentB& b) {
  return b;  // NOLINT(bugprone-return-const-ref-from-parameter): callers have it in a variable
}

// A step of 32 inputs, as it is: each column's bytes of four inputs in a register.
DSM_HOST_DEVICE FragmentB fp8_operand(const Fp8Words<8>& words) {
  FragmentB b;
  for (int half = 0; half < 2; ++half) {
    for (int p = 0; p < 2; ++p) {
      const std::uint32_t* in = words.v[half] + 4 * p;
      const std::uint32_t low = bytes_of(in[0], in[1], 0x5140);   // of columns 0, 0, 1, 1
      const std::uint32_t high = bytes_of(in[0], in[1], 0x7362);  // of columns 2, 2, 3, 3
      const std::uint32_t more_low = bytes_of(in[2], in[3], 0x5140);
      const std::uint32_t more_high = bytes_of(in[2], in[3], 0x7362);
      b.v[half * 4][p] = bytes_of(low, more_low, 0x5410);
      b.v[half * 4 + 1][p] = bytes_of(low, more_low, 0x7632);
      b.v[half * 4 + 2][p] = bytes_of(high, more_high, 0x5410);
      b.v[half * 4 + 3][p] = bytes_of(high, more_high, 0x7632);
    }
  }
  return b;
}

struct alignas(8) Two {
  std::uint32_t v[2];
};

// Rows g and g + 8 of a step of 32 inputs in FP8, aligned to 8 bytes; a row that is null counts as
// zeros. Rows reach to a multiple of 32.
DSM_HOST_DEVICE FragmentA load_fp8_rows(const std::uint8_t* row, const std::uint8_t* row_below,
                                        int at, int lane) {
  FragmentA a = {};
  const std::uint8_t* const rows[2] = {row, row_below};
  for (int r = 0; r < 2; ++r) {
    if (rows[r] == nullptr) continue;
    const auto words = *reinterpret_cast<const Two*>(rows[r] + at + lane % 4 * 8);
    a.v[r] = words.v[0];
    a.v[r + 2] = words.v[1];
  }
  return a;
}

// The first of the lane's four inputs of a step that begins at `at`.
DSM_HOST_DEVICE int first_input(int at, int lane) {
  return at + lane % 4 * 4;
}

// The panel's column of register i of product j's sums, and the tile's row of it.
DSM_HOST_DEVICE int column_of(int product, int i, int lane) {
  return product / 4 * 32 + (lane % 4 * 2 + i % 2) * 4 + product % 4;
}
DSM_HOST_DEVICE int row_of(int i, int lane) {
  return lane / 4 + i / 2 * 8;
}

}  // namespace dsm::kernels::cuda
