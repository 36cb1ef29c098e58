// Rows of a product as operands A of the tensor cores, in the order in which warps take them
// (product.cuh): each tile's, once for all panels.
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

// A thread block for each tile and span, a warp for each split. kWordInputs: inputs of a word of
// the weights (integer_fragments.h), which begin before input 0 where they do; 0: they have no
// words.
template <int kTerms, int kWordInputs>
__global__ void __launch_bounds__(kProductThreads) pack_kernel(const Products p) {
  follow_previous_kernel();
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const PackedMatrix w = task.w;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int split = static_cast<int>(blockIdx.y) * kSpanSplits + warp;
  if (tile.row >= task.rows || split >= splits_of(w)) return;  // the whole warp does
  int begin = split_begin(w, split);
  if constexpr (kWordInputs > 0) {
    if (split == 0) begin = -(w.scale_phase % kWordInputs);
  }
  const int end = split_end(w, split);
  const int tiles = p.tile_rows / kTileRows;
  uint4* to = static_cast<uint4*>(p.x_operands) + lane +
              (blockIdx.x * std::int64_t{p.spans} * kSpanSplits + split) *
                  (kSplitSteps * tiles * kTerms * 32);
  const auto row_of = [&](int row) -> const float* {
    if (row >= task.rows) return nullptr;
    return PlainRows::row(p, task, p.token != nullptr ? p.token[task.first_row + row] : row);
  };
  for (int t = 0; t < tiles; ++t) {
    const int row = tile.row + t * kTileRows + lane / 4;
    const float* const above = row_of(row);
    const float* const below = row_of(row + 8);
#pragma unroll
    for (int step = 0; step < kSplitSteps; ++step) {
      const int at = begin + step * kStepInputs;
      const int first = kWordInputs == 8 ? int4_input(at - step % 2 * kStepInputs, step % 2, lane)
                                         : first_input(at, lane);
      const RowOperand<kTerms> a =
          row_operand<kTerms>(load_activations(above, below, first, end, p.wide_x));
#pragma unroll
      for (int term = 0; term < kTerms; ++term) {
        const auto& v = a.term[term].v;
        to[((step * tiles + t) * kTerms + term) * 32] = make_uint4(v[0], v[1], v[2], v[3]);
      }
    }
  }
}

template <int kWordInputs>
void launch_pack(const Products& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tile_count), static_cast<unsigned>(p.spans));
  if (p.exact) {
    launch_early(pack_kernel<2, kWordInputs>, grid, kProductThreads, 0, stream, p);
  } else {
    launch_early(pack_kernel<1, kWordInputs>, grid, kProductThreads, 0, stream, p);
  }
}

}  // namespace

void pack_rows(const Products& p, DType dtype, Stream stream) {
  if (dtype == DType::kInt8) {
    launch_pack<inputs_per_word(DType::kInt8)>(p, stream);
  } else if (dtype == DType::kInt4) {
    launch_pack<inputs_per_word(DType::kInt4)>(p, stream);
  } else {
    launch_pack<0>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
