#include "kernels/cpu/stored_integers.h"

namespace dsm::kernels {

bool stored_by_blocks(const WeightPiece& piece) {
  const BlockScales& scales = piece.scales;
  const bool inputs_are_columns = scales.block_rows == 1;
  const bool along = inputs_are_columns ? piece.k_stride == 1 : piece.k_stride == scales.columns;
  if (!along) return false;
  // Of a scale for all inputs nothing but its being longer than the tensor is said.
  const std::int64_t block = inputs_are_columns ? scales.block_columns : scales.block_rows;
  const std::int64_t first =
      inputs_are_columns ? piece.origin % scales.columns : piece.origin / scales.columns;
  return block == kScaleBlock || first + piece.k <= block;
}

StoredBytes stored_bytes(const WeightPiece& piece, std::int64_t first, std::int64_t last) {
  const std::int64_t columns = piece.scales.columns;
  const int per_word = 32 / stored_bits(piece);
  const std::int64_t begin = piece.origin + first * piece.n_stride;
  const std::int64_t end =
      piece.origin + (last - 1) * piece.n_stride + (piece.k - 1) * piece.k_stride;
  std::int64_t row = begin / columns;
  std::int64_t last_row = end / columns;
  std::int64_t column = begin % columns;
  std::int64_t last_column = end % columns;
  std::int64_t row_words = columns;
  if (piece.scales.block_rows == 1 || piece.outputs_in_words) {
    column /= per_word;
    last_column /= per_word;
    row_words = (columns + per_word - 1) / per_word;
  } else {
    row /= per_word;
    last_row /= per_word;
  }
  return {.begin = piece.data + (row * row_words + column) * 4,
          .runs = last_row - row + 1,
          .width = (last_column - column + 1) * 4,
          .stride = row_words * 4};
}

}  // namespace dsm::kernels
