// Products of many rows in FP8 by weights in FP8 (product_wide_fp8.cu) as functions on a stream; as
// launch.h has it. Compute capability 9.0 alone.
#pragma once

#include "kernels/cuda/fp8_stages.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/product_wide.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kWideFp8Panels = 2;  // of a thread block

// Of a launch whose largest task has so many rows.
constexpr int wide_fp8_tile_rows(int rows) {
  return rows > 128 ? 256 : rows > 64 ? 128 : 64;
}

// Rows of one task, of so many that its tiles are the largest, as operands of such a product: made
// by whoever makes the rows, rounded to FP8, instead of by pack_wide_fp8_rows(). Rows past the last
// are not written.
inline constexpr int kFp8HeldRows = 256;  // of a tile
struct WideFp8Rows {
  void* data = nullptr;
  int stages = 0;
  bool power_of_two = false;  // scales, as QuantiseParams'
};

// `params` is as of products() with fp8_rows, with tiles of 64, 128 or 256 rows. `stages`: splits
// of the longest matrix.
struct WideFp8Products {
  Products params;
  int stages = 0;
  int processors = 0;  // of the device
  // Pairs of blocks do it (product_paired_fp8.cu), with tiles of kFp8HeldRows, all of whose inputs
  // are one part.
  bool pairs = false;
  // SwiGLU of pairs of blocks, of one task: what it gives goes here as the rows of the next product
  // instead of to y.
  WideFp8Rows to = {};
};
// Of x_operands: [tiles][stages], each the tile's rows as SharedRows (ptx.cuh) stand in shared
// memory, and a scale of each (fp8_scale_place).
DSM_HOST_DEVICE constexpr int wide_fp8_stage_bytes(int tile_rows) {
  return tile_rows * (kFp8StageInputs + static_cast<int>(sizeof(float)));
}
constexpr std::int64_t wide_fp8_bytes_of_tile(const WideFp8Products& p) {
  return std::int64_t{p.stages} * wide_fp8_stage_bytes(p.params.tile_rows);
}
constexpr std::int64_t wide_fp8_rows_bytes(int rows, int stages) {
  return std::int64_t{(rows + kFp8HeldRows - 1) / kFp8HeldRows} * stages *
         wide_fp8_stage_bytes(kFp8HeldRows);
}
// rms_norm() as such rows.
void rms_norm_fp8_rows(const RmsNormParams& params, const WideFp8Rows& to, Stream stream);
// quantise() without a factor, likewise.
void quantise_fp8_rows(const QuantiseParams& params, const WideFp8Rows& to, Stream stream);

void pack_wide_fp8_rows(const WideFp8Products& p, Stream stream);
void wide_fp8_products(const WideFp8Products& p, Stream stream);

// Pieces of the work of pairs of blocks (product_paired_fp8.cu): a tile, and kPairedPanels columns.
// Pairs that run at the same time should read the same: of up to so many tiles, whose rows of 4,096
// inputs are a third of an H100's second cache, those of one column come one after the other.
inline constexpr int kTilesTogether = 16;
struct PairedPiece {
  int tile = 0;
  int column = 0;
};
DSM_HOST_DEVICE constexpr int paired_columns(int panels) {
  return (panels + kPairedPanels - 1) / kPairedPanels;
}
DSM_HOST_DEVICE constexpr PairedPiece paired_piece(int number, int tiles, int columns) {
  const int first = number / (kTilesTogether * columns) * kTilesTogether;
  const int together = tiles - first < kTilesTogether ? tiles - first : kTilesTogether;
  const int at = number - first * columns;
  return {first + at % together, at / together};
}
// By wide_fp8_products().
void paired_fp8_products(const WideFp8Products& p, Stream stream);

}  // namespace dsm::kernels::cuda
