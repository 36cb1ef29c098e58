// Weights as they stand in a checkpoint -> packed panels (layout at kernels::PackedMatrix). Pure
// functions: different panels of a matrix may be packed on different threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/params.h"

namespace dsm::kernels {

// The scales of a tensor in FP8 or integers: one for each block of block_rows x block_columns, at
// the last row and column cut short. A weight is the value times its block's scale, rounded to
// FP32. Blocks count from the tensor's first element, so a slice may begin inside of one.
struct BlockScales {
  const std::byte* data = nullptr;  // [ceil(rows / block_rows), ceil(columns / block_columns)]
  DType dtype = DType::kF32;        // kF32 or kF8E8M0; of integers kF32, kF16 or kBF16
  int block_rows = 0;
  int block_columns = 0;
  std::int64_t columns = 0;  // of the whole tensor
};

// What is taken off the integers of a checkpoint before they are multiplied by their scales: 4 bits
// for each output and block of a scale, eight outputs in a word of 32 bits (stored_integers.h).
struct ZeroPoints {
  const std::byte* data = nullptr;  // null: there are none
  std::int64_t output_words = 0;    // from a word to that of the next eight outputs
  std::int64_t block_words = 0;     // from a word to that of the next block
  int less = 0;                     // so much less than they are do they stand there
};

// Element (j, i) of a piece of a weight, output column j and input i, is element at = origin + j *
// n_stride + i * k_stride of a tensor that begins at `data`, at any alignment. data == nullptr: n
// columns of zeros. One of the strides is 1, the other the tensor's row, so exchanging n with k and
// the strides transposes the piece.
struct WeightPiece {
  const std::byte* data = nullptr;
  DType dtype = DType::kBF16;
  std::int64_t n_stride = 0;
  std::int64_t k_stride = 1;
  int n = 0;
  int k = 0;
  std::int64_t origin = 0;
  BlockScales scales = {};  // of kF8E4M3, and of kInt8 and kInt4 (stored_integers.h)
  // kInt8 or kInt4: rounded to integers (integers.h), where k_stride is 1, in blocks of 128 inputs
  // that count from the tensor's first column, so a slice has the weights of the whole tensor.
  // Where the tensor has these integers, with a scale for 128 inputs or all, they are kept.
  std::optional<DType> round_to = {};
  // Of kInt8: the tensor's integers have 4 bits, and with these taken off -16 .. 15.
  ZeroPoints zeros = {};
  // Of kInt8 with zero points whose inputs are the tensor's rows: words hold eight outputs.
  bool outputs_in_words = false;
};

// The type in which pieces are packed together: integers when all of them are to be rounded to the
// same, BF16 or FP8 when all of them are that, else FP32 (exact for FP16, BF16 and, with scales,
// FP8 and integers). FP8 also becomes FP32 when a product cannot take it: pieces whose blocks of
// inputs do not begin together, other blocks than of 128, scales of 128 or more.
DType packed_dtype(std::span<const WeightPiece> pieces);
// Enough for any scale_phase.
std::size_t packed_bytes(DType dtype, int n, int k);
// The pieces side by side along n, before they are packed into `out`, which holds packed_bytes()
// for the sum of their n. All have the same k.
PackedMatrix packed_matrix(std::span<const WeightPiece> pieces, void* out);
// Packs panels [begin, end) of packed_matrix(). False when a weight in FP8 is not a number, or one
// that is an integer or rounded to one is not finite.
[[nodiscard]] bool pack_panels(std::span<const WeightPiece> pieces, const PackedMatrix& into,
                               int begin, int end);
// All panels.
PackedMatrix pack(std::span<const WeightPiece> pieces, void* out);

// `count` values at any alignment as FP32; not for FP8, which needs its scales.
void to_float(const std::byte* data, DType dtype, std::int64_t count, float* out);

// The exact values of the two 8-bit types; 0x7f and 0xff, and 0xff of E8M0, are not numbers.
float from_e4m3(std::uint8_t bits);
float from_e8m0(std::uint8_t bits);

}  // namespace dsm::kernels
