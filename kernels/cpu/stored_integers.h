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
// With zero points integers have 4 bits, and what is left of them 5: they become INT8. There is a
// third way for them, AWQ's: inputs are the tensor's rows, and words [rows][columns / 8] hold eight
// outputs, which with their zero points stand in an order of their own.
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

// Of an integer in the checkpoint.
constexpr int stored_bits(const WeightPiece& piece) {
  return piece.dtype == DType::kInt4 || piece.zeros.data != nullptr ? 4 : 8;
}

// Reads the integers of a piece's output j; outlived by the piece.
class StoredIntegers {
 public:
  StoredIntegers(const WeightPiece& piece, std::int64_t j)
      : data_(piece.data),
        columns_(piece.scales.columns),
        zeros_(piece.zeros),
        along_rows_(piece.k_stride != 1),
        inputs_are_columns_(piece.scales.block_rows == 1),
        outputs_in_words_(piece.outputs_in_words),
        four_bits_(stored_bits(piece) == 4),
        lowest_(zeros_.data != nullptr ? 0
                : four_bits_           ? -8
                                       : -128),
        row_words_(four_bits_ ? (columns_ + 7) / 8 : (columns_ + 3) / 4),
        block_(inputs_are_columns_ ? piece.scales.block_columns : piece.scales.block_rows) {
    const std::int64_t first = piece.origin + j * piece.n_stride;
    row_ = first / columns_;
    column_ = first % columns_;
  }

  // Of input i: -8 .. 7 or -128 .. 127, without its scale; with zero points 0 .. 15, of which
  // zero(i) is to be taken off.
  int at(std::int64_t i) const {
    const std::int64_t row = along_rows_ ? row_ + i : row_;
    const std::int64_t column = along_rows_ ? column_ : column_ + i;
    const bool along_columns = inputs_are_columns_ || outputs_in_words_;
    std::int64_t place = along_columns ? column : row;
    const std::int64_t of_row = four_bits_ ? place / 8 : place / 4;
    const std::int64_t word =
        along_columns ? row * row_words_ + of_row : of_row * columns_ + column;
    if (outputs_in_words_) place = place_of_output(place);
    const std::int64_t byte = four_bits_ ? place % 8 / 2 : place % 4;
    const auto bits = std::to_integer<int>(data_[word * 4 + byte]);
    return (four_bits_ ? bits >> (place % 2 * 4) & 15 : bits) + lowest_;
  }

  // Of input i and all that share its scale.
  int zero(std::int64_t i) const {
    if (zeros_.data == nullptr) return 0;
    const std::int64_t row = along_rows_ ? row_ + i : row_;
    const std::int64_t column = along_rows_ ? column_ : column_ + i;
    const std::int64_t output = inputs_are_columns_ ? row : column;
    const std::int64_t block = (inputs_are_columns_ ? column : row) / block_;
    const std::int64_t word = output / 8 * zeros_.output_words + block * zeros_.block_words;
    const std::int64_t place = outputs_in_words_ ? place_of_output(output) : output % 8;
    const auto bits = std::to_integer<int>(zeros_.data[word * 4 + place / 2]);
    return (bits >> (place % 2 * 4) & 15) + zeros_.less;
  }

 private:
  // AWQ's: of eight outputs the even ones stand in a word's lower half.
  static std::int64_t place_of_output(std::int64_t output) {
    return output % 8 / 2 + output % 2 * 4;
  }

  const std::byte* data_;
  std::int64_t columns_;
  ZeroPoints zeros_;
  bool along_rows_;  // from one input to the next
  bool inputs_are_columns_;
  bool outputs_in_words_;
  bool four_bits_;
  int lowest_;  // number that is stored as 0
  std::int64_t row_words_;
  std::int64_t block_;    // inputs of a scale
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
