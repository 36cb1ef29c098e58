// What a library's product wants: both sides row by row in BF16, inputs padded with zeros.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPairs = kUnpackInputs / 2;

// Inputs 2 `pair` and the next of a column of a panel.
__device__ std::uint32_t pair_of(const PackedMatrix& w, std::int64_t panel, int pair, int column) {
  if (2 * pair >= w.k) return 0;
  if (w.dtype == DType::kBF16) {
    const std::int64_t pairs = (w.k + 1) / 2;
    return static_cast<const std::uint32_t*>(w.data)[(panel * pairs + pair) * kPanel + column];
  }
  float value[2] = {};
  for (int i = 0; i < 2; ++i) {
    const int input = 2 * pair + i;
    if (input >= w.k) continue;
    const std::uint32_t bits =
        static_cast<const std::uint8_t*>(w.data)[(panel * w.k + input) * kPanel + column];
    const std::int64_t block = (w.scale_phase + input) / kScaleBlock;
    const float scale = w.scales[(panel * splits_of(w) + block) * kPanel + column] * 0x1p-120F;
    value[i] = first_of(bf16_pair_of_e4m3(bits, 0)) * scale;
  }
  return bf16_pair(value[0], value[1]);
}

// A thread block turns 64 columns of 64 inputs.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const PackedMatrix w, std::uint32_t* to, std::int64_t ld) {
  __shared__ std::uint32_t turned[kPairs][kPanel + 1];
  const std::int64_t panel = blockIdx.x;
  const int first = static_cast<int>(blockIdx.y) * kPairs;
  const int thread = static_cast<int>(threadIdx.x);
  for (int at = thread; at < kPairs * kPanel; at += kThreads) {
    const int pair = at / kPanel;
    const int column = at % kPanel;
    turned[pair][column] = pair_of(w, panel, first + pair, column);
  }
  __syncthreads();
  for (int at = thread; at < kPairs * kPanel; at += kThreads) {
    const int column = at / kPairs;
    const int pair = at % kPairs;
    to[(panel * kPanel + column) * (ld / 2) + first + pair] = turned[pair][column];
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Products p, const ProductTask task, std::uint32_t* to, std::int64_t ld) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (2 * pair >= ld) return;
  const std::int64_t from = p.token != nullptr ? p.token[task.first_row + row] : row;
  const float* x = task.x + from * p.ldx;
  const std::int64_t input = 2 * pair;
  const float first = input < task.w.k ? x[input] : 0.0F;
  const float second = input + 1 < task.w.k ? x[input + 1] : 0.0F;
  to[row * (ld / 2) + pair] = bf16_pair(first, second);
}

}  // namespace

void unpack_bf16(const PackedMatrix& w, std::uint16_t* to, std::int64_t ld, Stream stream) {
  const dim3 grid(static_cast<unsigned>(panels_of(w)), static_cast<unsigned>(ld / kUnpackInputs));
  launch(unpack_kernel, grid, kThreads, 0, stream, w, reinterpret_cast<std::uint32_t*>(to), ld);
}

void gather_bf16(const Products& p, const ProductTask& task, std::uint16_t* to, std::int64_t ld,
                 Stream stream) {
  const dim3 grid(static_cast<unsigned>(task.rows),
                  static_cast<unsigned>((ld / 2 + kThreads - 1) / kThreads));
  launch(gather_kernel, grid, kThreads, 0, stream, p, task, reinterpret_cast<std::uint32_t*>(to),
         ld);
}

}  // namespace dsm::kernels::cuda
