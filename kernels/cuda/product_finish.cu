// The second half of a product of many rows, whose parts are added in their order, and of a
// library's product, which is one; and which kernels a product is for.
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kProductThreads) finish_kernel(const Products p) {
  follow_previous_kernel();
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const int panel = static_cast<int>(blockIdx.y);
  if (tile.row >= task.rows || panel * kPanel >= task.w.n) return;
  const int spans = spans_of(task.w) < p.spans ? spans_of(task.w) : p.spans;
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread % (kPanel / 4) * 4;
  for (int t = 0; t < p.tile_rows; t += kTileRows) {
    const int row = tile.row + t + thread / (kPanel / 4);
    float total[4] = {};
    if (row < task.rows) {
      add_spans(p.partial + (static_cast<std::int64_t>(task.first_row) + row) * p.ld_partial +
                    panel * kPanel + column,
                p.rows * p.ld_partial, spans, total);
    }
    finish(p, task, row, panel, column, total);
  }
}

}  // namespace

void finish_products(const Products& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tile_count), static_cast<unsigned>(p.panels));
  launch_early(finish_kernel, grid, kProductThreads, 0, stream, p);
}

void products(const Products& p, DType dtype, Stream stream) {
  if (dtype == DType::kBF16) {
    bf16_products(p, stream);
  } else if (dtype == DType::kF8E4M3 && p.fp8_rows) {
    fp8_row_products(p, stream);
  } else if (dtype == DType::kF8E4M3) {
    fp8_products(p, stream);
  } else if (dtype == DType::kInt8) {
    int8_products(p, stream);
  } else if (dtype == DType::kInt4) {
    int4_products(p, stream);
  } else {
    f32_products(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
