// Products of many rows (product_wide.cu) as functions on a stream; as launch.h has it. Compute
// capability 9.0 alone, weights in BF16, activations as one BF16 term.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kWidePanels = 4;  // of a thread block

// Of a launch whose largest task has so many rows.
constexpr int wide_tile_rows(int rows) {
  return rows > 64 ? 128 : 64;
}

// Parts of the inputs, of `spans` at most. A part is written and read again, so there are no more
// than fill the processors once, which hold a block each.
constexpr int wide_parts(int tiles, int panels, int spans, int processors) {
  const std::int64_t blocks = std::int64_t{tiles} * ((panels + kWidePanels - 1) / kWidePanels);
  const std::int64_t parts = processors / (blocks > 0 ? blocks : 1);
  if (parts < 1 || spans < 1) return 1;
  return parts < spans ? static_cast<int>(parts) : spans;
}

// `params` is as of products(), with tiles of 64 or 128 rows. `stages`: of the longest matrix.
struct WideProducts {
  Products params;
  int stages = 0;
};
// Of x_operands: [tiles][stages][tile_rows][64] in BF16, each 64 inputs of a row as SharedRows
// (ptx.cuh) stand in shared memory.
constexpr std::int64_t wide_bytes_of_tile(const WideProducts& p) {
  return std::int64_t{p.stages} * p.params.tile_rows * kWideInputs * 2;
}
void pack_wide_rows(const WideProducts& p, Stream stream);
void wide_products(const WideProducts& p, Stream stream);

}  // namespace dsm::kernels::cuda
