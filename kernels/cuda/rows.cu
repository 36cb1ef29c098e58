// Operators that go over a whole row: norms, and the writing and reading of keys and values. A
// thread block has a row; its sum of squares is a chain for each thread, added in one fixed tree.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fp8_rows.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/kv_write.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/product_wide.h"
#include "kernels/cuda/rope_fours.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = kKvWriteThreads;

// Four neighbours of a row.
__device__ Four<float> load_neighbours(const float* from, bool wide) {
  if (wide) return load_four(from);
  return {{from[0], from[1], from[2], from[3]}};
}

// A thread has fours of a row that are a thread block's width apart, the first kHeld of them in
// registers, with the weights: a row of 8,192 is read once, all of it at the same time. The sum of
// squares is a chain for each thread, added in one tree. `wide`: rows and weights are aligned to
// four values.
constexpr int kHeld = 2;

// Calls put(four, values) with what it gives, up to `end` fours of which those past the width are
// zeros.
template <class Put>
__device__ __forceinline__ void norm_row(const RmsNormParams& p, bool wide, int end,
                                         const Put& put_four) {
  __shared__ float warp_sum[kNormThreads / 32];
  const std::int64_t row = blockIdx.x;
  const float* x = p.x + (p.row_index != nullptr ? p.row_index[row] : row) * p.ldx;
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int fours = p.width / 4;
  Four<float> held[kHeld] = {};
  Four<float> weight[kHeld] = {};
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = thread + i * threads;
    if (at >= fours) continue;
    held[i] = load_neighbours(x + 4 * at, wide);
    weight[i] = load_neighbours(p.weight + 4 * at, wide);
  }
  float sum = 0.0F;
  const auto add = [&](const Four<float>& four) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum = fmaf(four.v[j], four.v[j], sum);
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (thread + i * threads < fours) add(held[i]);
  }
  for (int at = thread + kHeld * threads; at < fours; at += threads) {
    add(load_neighbours(x + 4 * at, wide));
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (thread % 32 == 0) warp_sum[thread / 32] = sum;
  __syncthreads();
  float all = thread % 32 < threads / 32 ? warp_sum[thread % 32] : 0.0F;
  for (int step = 16; step > 0; step /= 2) all += __shfl_xor_sync(0xffffffffU, all, step);
  const float inverse = 1.0F / sqrtf(all / static_cast<float>(p.width) + p.eps);
  const auto put = [&](int at, const Four<float>& of_x, const Four<float>& of_weight) {
    Four<float> four;
#pragma unroll
    for (int j = 0; j < 4; ++j) four.v[j] = of_weight.v[j] * (of_x.v[j] * inverse);
    put_four(at, four);
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (thread + i * threads < end) put(thread + i * threads, held[i], weight[i]);
  }
  for (int at = thread + kHeld * threads; at < end; at += threads) {
    const bool there = at < fours;
    put(at, there ? load_neighbours(x + 4 * at, wide) : Four<float>{},
        there ? load_neighbours(p.weight + 4 * at, wide) : Four<float>{});
  }
}

__global__ void __launch_bounds__(kNormThreads)
    rms_norm_kernel(const RmsNormParams p, const bool wide) {
  follow_previous_kernel();
  float* y = p.y + static_cast<std::int64_t>(blockIdx.x) * p.ldy;
  norm_row(p, wide, p.width / 4, [&](int at, const Four<float>& four) {
    float* to = y + 4 * at;
    if (wide) {
      *reinterpret_cast<Four<float>*>(to) = four;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) to[j] = four.v[j];
    }
  });
}

// The same rounded to FP8, as rows of the next product: the fours of a warp are the inputs of one
// scale.
__global__ void __launch_bounds__(kNormThreads)
    rms_norm_fp8_rows_kernel(const RmsNormParams p, const WideFp8Rows to, const bool wide) {
  follow_previous_kernel();
  const int row = static_cast<int>(blockIdx.x);
  norm_row(p, wide, to.stages * kFp8StageFours, [&](int at, const Four<float>& four) {
    put_fp8_block(to, row, at / kFp8StageFours, four);
  });
}

// The same, rounded, as rows of the next product: a thread has 16 bytes of a row at a time, a pair
// of inputs from each piece of a stage.
constexpr int kRowThreads = 256;
constexpr int kHeldChunks = 2;
constexpr int kPieces = 4;
using ChunkInputs = float2[kPieces];
__global__ void __launch_bounds__(kRowThreads)
    rms_norm_rows_kernel(const RmsNormParams p, const WideRows to, const bool wide) {
  follow_previous_kernel();
  __shared__ float warp_sum[kRowThreads / 32];
  const int row = static_cast<int>(blockIdx.x);
  const float* x = p.x + row * p.ldx;
  const int thread = static_cast<int>(threadIdx.x);
  const int chunks = to.stages * 8;
  const auto load = [&](const float* from, int chunk, ChunkInputs& two) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int input = chunk / 8 * kWideInputs + (piece * 8 + chunk % 8) * 2;
      if (wide && input + 1 < p.width) {
        two[piece] = *reinterpret_cast<const float2*>(from + input);
      } else {
        two[piece].x = input < p.width ? from[input] : 0.0F;
        two[piece].y = input + 1 < p.width ? from[input + 1] : 0.0F;
      }
    }
  };
  ChunkInputs held[kHeldChunks];
  ChunkInputs weight[kHeldChunks];
#pragma unroll
  for (int i = 0; i < kHeldChunks; ++i) {
    const int chunk = thread + i * kRowThreads;
    if (chunk >= chunks) continue;
    load(x, chunk, held[i]);
    load(p.weight, chunk, weight[i]);
  }
  float sum = 0.0F;
  const auto add = [&](const ChunkInputs& two) {
#pragma unroll
    for (const float2& pair : two) sum = fmaf(pair.y, pair.y, fmaf(pair.x, pair.x, sum));
  };
#pragma unroll
  for (int i = 0; i < kHeldChunks; ++i) {
    if (thread + i * kRowThreads < chunks) add(held[i]);
  }
  for (int chunk = thread + kHeldChunks * kRowThreads; chunk < chunks; chunk += kRowThreads) {
    ChunkInputs two;
    load(x, chunk, two);
    add(two);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (thread % 32 == 0) warp_sum[thread / 32] = sum;
  __syncthreads();
  float all = 0.0F;
#pragma unroll
  for (const float of_warp : warp_sum) all += of_warp;
  const float inverse = 1.0F / sqrtf(all / static_cast<float>(p.width) + p.eps);
  const auto put = [&](int chunk, const ChunkInputs& of_x, const ChunkInputs& of_weight) {
    std::uint32_t words[kPieces];
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      words[piece] = bf16_pair(of_weight[piece].x * (of_x[piece].x * inverse),
                               of_weight[piece].y * (of_x[piece].y * inverse));
    }
    auto* stage = static_cast<unsigned char*>(to.data) +
                  unit_stage(row, chunk / 8, to.stages) * kUnitStageBytes;
    reinterpret_cast<uint4*>(stage)[chunk_at(row % kUnitRows, chunk % 8)] =
        make_uint4(words[0], words[1], words[2], words[3]);
  };
#pragma unroll
  for (int i = 0; i < kHeldChunks; ++i) {
    const int chunk = thread + i * kRowThreads;
    if (chunk < chunks) put(chunk, held[i], weight[i]);
  }
  for (int chunk = thread + kHeldChunks * kRowThreads; chunk < chunks; chunk += kRowThreads) {
    ChunkInputs two;
    ChunkInputs of_weight;
    load(x, chunk, two);
    load(p.weight, chunk, of_weight);
    put(chunk, two, of_weight);
  }
}

__global__ void __launch_bounds__(kThreads) kv_write_kernel(const KvWriteParams p) {
  follow_previous_kernel();
  __shared__ float warp_sum[kThreads / 32];
  write_latent(p, blockIdx.x, warp_sum);
}

__global__ void __launch_bounds__(kThreads) kv_write_heads_kernel(const KvWriteHeadsParams p) {
  follow_previous_kernel();
  write_head(p, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
}

// A thread block for each position.
template <DType kType>
__global__ void __launch_bounds__(kThreads) latent_read_kernel(const LatentReadParams p) {
  follow_previous_kernel();
  const int row = static_cast<int>(blockIdx.x);
  const int slot = row % kKvBlock;
  const int latent = p.kv.value_dim;
  const std::int32_t block = p.blocks[row / kKvBlock];
  const KeyBlock<kType> keys(p.kv, block);
  const ValueBlock<kType> values(p.kv, block);
  float* latents = p.latents + static_cast<std::int64_t>(row) * latent;
  float* rotated =
      p.rotated + static_cast<std::int64_t>(row / kKvBlock) * (p.kv.key_dim - latent) * kKvBlock;
  for (int i = static_cast<int>(threadIdx.x); i < p.kv.key_dim; i += kThreads) {
    if (i < latent) {
      latents[i] = values.at(slot, i);
    } else {
      rotated[static_cast<std::int64_t>(i - latent) * kKvBlock + slot] = keys.at(i, slot);
    }
  }
}

// A warp has a head: a lane the values that are a warp's width apart, whose squares are a chain,
// added in one tree.
constexpr int kHeadsPerBlock = 8;

__global__ void __launch_bounds__(32 * kHeadsPerBlock) norm_heads_kernel(const NormHeadsParams p) {
  follow_previous_kernel();
  const int heads = p.queries + p.keys;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kHeadsPerBlock + threadIdx.x / 32;
  if (at >= static_cast<std::int64_t>(p.tokens) * heads) return;  // whole warps do
  const int head = static_cast<int>(at % heads);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* x = p.x + at / heads * p.ldx + static_cast<std::int64_t>(head) * p.dim;
  const float* weight = head < p.queries ? p.query_weight : p.key_weight;
  float sum = 0.0F;
  for (int i = lane; i < p.dim; i += 32) sum = fmaf(x[i], x[i], sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  const float inverse = 1.0F / sqrtf(sum / static_cast<float>(p.dim) + p.eps);
  for (int i = lane; i < p.dim; i += 32) x[i] = weight[i] * (x[i] * inverse);
}

}  // namespace

void rms_norm(const RmsNormParams& p, Stream stream) {
  const auto aligned = [](const float* rows, std::int64_t ld) {
    return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && ld % 4 == 0;
  };
  launch_early(rms_norm_kernel, static_cast<unsigned>(p.rows), norm_threads(p.width), 0, stream, p,
               aligned(p.x, p.ldx) && aligned(p.y, p.ldy) && aligned(p.weight, 0));
}

void rms_norm_fp8_rows(const RmsNormParams& p, const WideFp8Rows& to, Stream stream) {
  const auto aligned = [](const float* rows, std::int64_t ld) {
    return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && ld % 4 == 0;
  };
  launch_early(rms_norm_fp8_rows_kernel, static_cast<unsigned>(p.rows), norm_threads(p.width), 0,
               stream, p, to, aligned(p.x, p.ldx) && aligned(p.weight, 0));
}

void rms_norm_rows(const RmsNormParams& p, const WideRows& to, Stream stream) {
  const auto aligned = [](const float* rows, std::int64_t ld) {
    return reinterpret_cast<std::uintptr_t>(rows) % 8 == 0 && ld % 2 == 0;
  };
  launch_early(rms_norm_rows_kernel, static_cast<unsigned>(p.rows), kRowThreads, 0, stream, p, to,
               aligned(p.x, p.ldx) && aligned(p.weight, 0));
}

void kv_write(const KvWriteParams& p, Stream stream) {
  launch_early(kv_write_kernel, static_cast<unsigned>(p.tokens), kThreads, 0, stream, p);
}

void kv_write_heads(const KvWriteHeadsParams& p, Stream stream) {
  if (writes_in_fours(p)) return kv_write_heads_fours(p, stream);
  const dim3 grid(static_cast<unsigned>(p.tokens), static_cast<unsigned>(p.kv.heads));
  launch_early(kv_write_heads_kernel, grid, kThreads, 0, stream, p);
}

void latent_read(const LatentReadParams& p, Stream stream) {
  const auto grid = static_cast<unsigned>(p.rows);
  if (p.kv.dtype == DType::kF32) {
    launch_early(latent_read_kernel<DType::kF32>, grid, kThreads, 0, stream, p);
  } else if (p.kv.dtype == DType::kBF16) {
    launch_early(latent_read_kernel<DType::kBF16>, grid, kThreads, 0, stream, p);
  } else {
    launch_early(latent_read_kernel<DType::kF8E4M3>, grid, kThreads, 0, stream, p);
  }
}

void norm_heads(const NormHeadsParams& p, Stream stream) {
  const auto heads = static_cast<std::int64_t>(p.tokens) * (p.queries + p.keys);
  const auto blocks = static_cast<unsigned>((heads + kHeadsPerBlock - 1) / kHeadsPerBlock);
  launch_early(norm_heads_kernel, blocks, 32 * kHeadsPerBlock, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
