// Products of many rows (product_wide.cu) as functions on a stream; as launch.h has it. Compute
// capability 9.0 alone, weights that takes_wide() (stage_weights.h), activations as one BF16 term.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/splits.h"
#include "kernels/cuda/wide_rows.h"

namespace dsm::kernels::cuda {

inline constexpr int kWidePanels = 4;  // of a thread block

// Of a launch whose largest task has so many rows.
constexpr int wide_tile_rows(int rows) {
  return rows > 64 ? 128 : 64;
}

// Pairs of thread blocks (product_paired.cu) take tiles of so many rows, and so many panels
// together.
inline constexpr int kPairedRows = 256;
inline constexpr int kPairedPanels = 4;
inline constexpr int kPairedBlocks = 2;
inline constexpr int kPairedFrom = 2 * kPairedRows;  // rows

// Whether they are worth it for `rows` rows in so many tiles: little of a tile is for no row, and
// not most of the processors' time for no tile, since a pair is nearly twice as fast as two blocks
// of the other kernel. Nothing is divided among pairs.
constexpr bool pairs_pay(std::int64_t rows, std::int64_t tiles, int panels, int processors) {
  const int pairs = processors / kPairedBlocks;
  if (rows < kPairedFrom || pairs == 0) return false;
  if (tiles * kPairedRows * 7 > rows * 8) return false;
  const std::int64_t pieces = tiles * ((panels + kPairedPanels - 1) / kPairedPanels);
  const std::int64_t turns = (pieces + pairs - 1) / pairs;
  return pieces * 3 >= turns * pairs;
}

// Parts of the inputs, of `spans` at most. A part is written and read again, so there are no more
// than fill the processors once, which hold a block each.
constexpr int wide_parts(int tiles, int panels, int spans, int processors,
                         int block_panels = kWidePanels) {
  const std::int64_t blocks = std::int64_t{tiles} * ((panels + block_panels - 1) / block_panels);
  const std::int64_t parts = processors / (blocks > 0 ? blocks : 1);
  if (parts < 1 || spans < 1) return 1;
  return parts < spans ? static_cast<int>(parts) : spans;
}

// `params` is as of products(), with tiles of 64, 128 or, for pairs of blocks, 256 rows.
struct WideProducts {
  Products params;
  int stages = 0;              // of the longest matrix
  int processors = 0;          // of the device
  DType dtype = DType::kBF16;  // of the weights, all of which takes_wide() (stage_weights.h)
  // SwiGLU of pairs of blocks, of one task: what it gives goes here as the rows of the next product
  // instead of to y.
  WideRows to = {};
};
// Of x_operands: [tiles][stages][tile_rows][64] in BF16, each 64 inputs of a row as wide_rows.h has
// them; tiles of kPairedRows are two units of it.
constexpr std::int64_t wide_bytes_of_tile(const WideProducts& p) {
  return std::int64_t{p.stages} * p.params.tile_rows * kWideInputs * 2;
}
// Thread blocks that are there at the same time should read the same: those of one tile come one
// after the other where there are fewer of them than tiles (so experts' rows, which are more than
// the second cache holds, are read once), else those of the same panels.
constexpr bool tile_by_tile(int tiles, int panels) {
  return tiles > (panels + kWidePanels - 1) / kWidePanels;
}
void pack_wide_rows(const WideProducts& p, Stream stream);
// rms_norm() of rows as such operands, of params.width inputs, instead of y.
void rms_norm_rows(const RmsNormParams& params, const WideRows& to, Stream stream);
void wide_products(const WideProducts& p, Stream stream);
// The same with tiles of kPairedRows, all of whose inputs are one part.
void paired_products(const WideProducts& p, Stream stream);

}  // namespace dsm::kernels::cuda
