// Products of many rows in the deterministic mode (product_exact.cu) as functions on a stream; as
// launch.h has it. Compute capability 9.0 alone, weights that takes_exact() (exact_stage.h).
//
// Parameters are those of wide_products(), with tiles of kExactRows, params.exact, and spans as
// products() has them: where a thread block does not go through all of them they meet in `partial`.
#pragma once

#include "kernels/cuda/exact_stage.h"
#include "kernels/cuda/product_wide.h"

namespace dsm::kernels::cuda {

// Of x_operands: [tiles][terms][stages] units of rows.
constexpr std::int64_t exact_bytes_of_tile(const WideProducts& p) {
  return std::int64_t{kExactTerms} * p.stages * kUnitStageBytes;
}
// Spans of a pair of blocks: as many as there may be while no pair has nothing to do.
constexpr int exact_spans_each(int spans, int tiles, int panels, int processors) {
  const int parts = wide_parts(tiles, panels, spans, processors / kPairedBlocks, kPairedPanels);
  return (spans + parts - 1) / parts;
}
void pack_exact_rows(const WideProducts& p, Stream stream);
void exact_products(const WideProducts& p, Stream stream);

}  // namespace dsm::kernels::cuda
