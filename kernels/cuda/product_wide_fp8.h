// Products of many rows in FP8 by weights in FP8 (product_wide_fp8.cu) as functions on a stream; as
// launch.h has it. Compute capability 9.0 alone.
#pragma once

#include "kernels/cuda/fp8_stages.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kWideFp8Panels = 2;  // of a thread block

// Of a launch whose largest task has so many rows.
constexpr int wide_fp8_tile_rows(int rows) {
  return rows > 128 ? 256 : rows > 64 ? 128 : 64;
}

// `params` is as of products() with fp8_rows, with tiles of 64, 128 or 256 rows. `stages`: splits
// of the longest matrix.
struct WideFp8Products {
  Products params;
  int stages = 0;
};
// Of x_operands: [tiles][stages], each the tile's rows as SharedRows (ptx.cuh) stand in shared
// memory, and a scale of each (fp8_scale_place).
DSM_HOST_DEVICE constexpr int wide_fp8_stage_bytes(int tile_rows) {
  return tile_rows * (kFp8StageInputs + static_cast<int>(sizeof(float)));
}
constexpr std::int64_t wide_fp8_bytes_of_tile(const WideFp8Products& p) {
  return std::int64_t{p.stages} * wide_fp8_stage_bytes(p.params.tile_rows);
}
// Rows of one task, of so many that its tiles are the largest, as such operands: made by whoever
// makes the rows, rounded to FP8, instead of by pack_wide_fp8_rows(). Rows past the last are not
// written.
inline constexpr int kFp8HeldRows = 256;  // of a tile
struct WideFp8Rows {
  void* data = nullptr;
  int stages = 0;
  bool power_of_two = false;  // scales, as QuantiseParams'
};
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

}  // namespace dsm::kernels::cuda
