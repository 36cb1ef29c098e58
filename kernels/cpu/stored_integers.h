// Integers as they stand in checkpoints that were rounded by others: 4 or 8 bits each, plus 8 or
// 128, so none is negative. Words of 32 bits (little endian) hold 8 or 4 neighbours along the
// inputs of an output, the first in the lowest bits, and the last word of an output may be cut
// short. Two ways to lay them out have names in the field:
//
//   outputs are the tensor's rows: words [rows][ceil(columns / 8 or 4)], compressed-tensors'
//   "pack-quantized" and its scales [rows][blocks];
//   inputs are the tensor's rows: words [ceil(rows / 8 or 4)][columns], GPTQ's qweight and its
//   scales [blocks][columns].
//
// A block of scales is a run of inputs of one output, so it is the scales of a piece that say which
// of the two it is: in the first block_rows is 1, in the second block_columns. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/pack.h"

namespace dsm::kernels {

// Whether a piece of kInt4 or kInt8 is cut along its inputs as its words and scales are, with a
// scale for 128 inputs or for all: so it can be packed as it is.
bool stored_by_blocks(const WeightPiece& piece);

// Reads the integers of a piece's output j; outlived by the piece.
class StoredIntegers {
 public:
  StoredIntegers(const WeightPiece& piece, std::int64_t j)
      : data_(piece.data),
        columns_(piece.scales.columns),
        row_words_((columns_ + inputs_per_word(piece.dtype) - 1) / inputs_per_word(piece.dtype)),
        along_rows_(piece.k_stride != 1),
        inputs_are_columns_(piece.scales.block_rows == 1),
        four_bits_(piece.dtype == DType::kInt4) {
    const std::int64_t first = piece.origin + j * piece.n_stride;
    row_ = first / columns_;
    column_ = first % columns_;
  }

  // Of input i: -8 .. 7 or -128 .. 127, without its scale.
  int at(std::int64_t i) const {
    const std::int64_t row = along_rows_ ? row_ + i : row_;
    const std::int64_t column = along_rows_ ? column_ : column_ + i;
    const std::int64_t input = inputs_are_columns_ ? column : row;
    const std::int64_t input_word = four_bits_ ? input / 8 : input / 4;
    const std::int64_t word =
        inputs_are_columns_ ? row * row_words_ + input_word : input_word * columns_ + column;
    const std::int64_t byte = four_bits_ ? input % 8 / 2 : input % 4;
    const auto bits = std::to_integer<int>(data_[word * 4 + byte]);
    return four_bits_ ? (bits >> (input % 2 * 4) & 15) - 8 : bits - 128;
  }

 private:
  const std::byte* data_;
  std::int64_t columns_;
  std::int64_t row_words_;
  bool along_rows_;  // from one input to the next
  bool inputs_are_columns_;
  bool four_bits_;
  std::int64_t row_ = 0;  // of input 0 of the piece
  std::int64_t column_ = 0;
};

// The bytes in which outputs [first, last) of a piece stand: `runs` of `width` bytes, `stride` from
// one to the next. There is at least one output, and one input.
struct StoredBytes {
  const std::byte* begin = nullptr;
  std::int64_t runs = 0;
  std::int64_t width = 0;
  std::int64_t stride = 0;
};
StoredBytes stored_bytes(const WeightPiece& piece, std::int64_t first, std::int64_t last);

}  // namespace dsm::kernels
