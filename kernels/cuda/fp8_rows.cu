// Rows in FP32, rounded to FP8 and made operands of the next product in one go, where what makes
// the rows has not done so.
#include "kernels/cuda/fp8_rows.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 4;  // of a warp, asked for at the same time

// A warp has a stage of some rows, its neighbours the stages beside it.
__global__ void __launch_bounds__(kWarps * 32)
    quantise_rows_kernel(const QuantiseParams p, const WideFp8Rows to, const bool wide) {
  follow_previous_kernel();
  const int stage = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (stage >= to.stages) return;  // the whole warp does
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int input = stage * kFp8StageInputs + static_cast<int>(threadIdx.x) % 32 * 4;
  Four<float> x[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= p.rows) break;
    const float* from = p.x + (first + r) * p.ldx + input;
    if (wide && input + 4 <= p.width) {
      x[r] = load_four(from);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) x[r].v[i] = input + i < p.width ? from[i] : 0.0F;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r < p.rows) put_fp8_block(to, first + r, stage, x[r]);
  }
}

}  // namespace

void quantise_fp8_rows(const QuantiseParams& p, const WideFp8Rows& to, Stream stream) {
  const bool wide = reinterpret_cast<std::uintptr_t>(p.x) % 16 == 0 && p.ldx % 4 == 0;
  const dim3 grid(static_cast<unsigned>((p.rows + kRows - 1) / kRows),
                  static_cast<unsigned>((to.stages + kWarps - 1) / kWarps));
  launch_early(quantise_rows_kernel, grid, kWarps * 32, 0, stream, p, to, wide);
}

}  // namespace dsm::kernels::cuda
