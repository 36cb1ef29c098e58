// Operators whose outputs each come from a few inputs: the CPU's bits.
#include "kernels/cuda/combine.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/rope.cuh"
#include "kernels/cuda/rope_fours.h"
#include "kernels/cuda/tree.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}

__device__ std::int64_t this_item() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void embedding_kernel(const EmbeddingParams p) {
  follow_previous_kernel();
  const std::int64_t item = this_item();
  if (item >= static_cast<std::int64_t>(p.rows) * p.width) return;
  const std::int64_t token = p.tokens[item / p.width];
  const std::int64_t at = token * p.width + item % p.width;
  float value = 0.0F;
  if (token >= 0 && p.dtype == DType::kBF16) {
    value = first_of(static_cast<const std::uint16_t*>(p.table)[at]);
  } else if (token >= 0) {
    value = static_cast<const float*>(p.table)[at];
  }
  p.y[item] = value;
}

template <DType kType>
constexpr int kInputsPerWord = inputs_per_word(kType);

// A row is a column of a packed matrix, whose words and scales stand kPanel apart.
template <DType kType>
__global__ void embedding_of_integers_kernel(const EmbeddingParams p) {
  follow_previous_kernel();
  constexpr int kInputs = kInputsPerWord<kType>;
  constexpr int kBits = 32 / kInputs;
  const std::int64_t item = this_item();
  if (item >= static_cast<std::int64_t>(p.rows) * p.width) return;
  const std::int64_t token = p.tokens[item / p.width];
  const auto i = static_cast<int>(item % p.width);
  float value = 0.0F;
  if (token >= 0) {
    const std::int64_t panel = token / kPanel * kPanel;
    const std::int64_t lane = token % kPanel;
    const int words = (p.width + kInputs - 1) / kInputs;
    const int scales = (p.width + kScaleBlock - 1) / kScaleBlock;
    const std::uint32_t word = static_cast<const std::uint32_t*>(
        p.table)[panel * words + std::int64_t{i / kInputs} * kPanel + lane];
    const float scale = p.scales[panel * scales + std::int64_t{i / kScaleBlock} * kPanel + lane];
    const int number = i % kInputs;
    const int place = number / 2 + number % 2 * (kInputs / 2);  // place_in_word()
    const std::uint32_t bits = word >> (place * kBits);
    const int whole = kType == DType::kInt8 ? static_cast<std::int8_t>(bits & 255U)
                                            : static_cast<int>(bits & 15U) - 8;
    value = static_cast<float>(whole) * scale;
  }
  p.y[item] = value;
}

__global__ void tree_sum_kernel(const TreeSumParams p) {
  follow_previous_kernel();
  const std::int64_t item = this_item();
  if (item >= p.count) return;
  float part[kSegments] = {};
#pragma unroll
  for (int r = 0; r < kSegments; ++r) {
    if (r < p.ranks) part[r] = p.parts[r * p.count + item];
  }
  p.y[item] = p.residual[item] + tree_of(part, p.ranks);
}

template <int kColumns>
__global__ void __launch_bounds__(kCombineThreads) combine_kernel(const CombineParams p) {
  follow_previous_kernel();
  combine_token<kColumns>(p, blockIdx.x, static_cast<int>(blockIdx.y));
}

template <int kColumns>
void launch_combine(const CombineParams& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tokens),
                  static_cast<unsigned>(parts_of_columns(p.n, kCombineThreads * kColumns)));
  launch_early(combine_kernel<kColumns>, grid, kCombineThreads, 0, stream, p);
}

// A thread block for a block of the cache and a head of it. What is read by positions is written by
// dimensions: some at a time turn in shared memory, where a column more keeps lanes on different
// banks.
__global__ void __launch_bounds__(kThreads) heads_expand_kernel(const HeadsExpandParams p) {
  follow_previous_kernel();
  constexpr int kDims = 32;
  __shared__ float turning[kKvBlock][kDims + 1];
  const int block = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int width = p.nope + p.value;
  const int rows = p.rows - block * kKvBlock < kKvBlock ? p.rows - block * kKvBlock : kKvBlock;
  const std::int64_t row = std::int64_t{p.heads} * width;
  const float* x = p.x + std::int64_t{block} * kKvBlock * row + std::int64_t{head} * width;
  const std::int64_t place = std::int64_t{block} * p.heads + head;
  float* keys = p.keys + place * (p.nope + p.rope) * kKvBlock;
  for (int first = 0; first < p.nope; first += kDims) {
    __syncthreads();  // what was there has been written
#pragma unroll
    for (int at = thread; at < kKvBlock * kDims; at += kThreads) {
      const int slot = at / kDims;
      const int i = at % kDims;
      if (slot < rows && first + i < p.nope) turning[slot][i] = x[slot * row + first + i];
    }
    __syncthreads();
#pragma unroll
    for (int at = thread; at < kKvBlock * kDims; at += kThreads) {
      const int slot = at % kKvBlock;
      const int i = at / kKvBlock;
      if (slot < rows && first + i < p.nope) keys[(first + i) * kKvBlock + slot] = turning[slot][i];
    }
  }
  const float* rotated = p.rotated + std::int64_t{block} * p.rope * kKvBlock;
  for (int at = thread; at < p.rope * kKvBlock; at += kThreads) {
    if (at % kKvBlock < rows) keys[p.nope * kKvBlock + at] = rotated[at];
  }
  float* values = p.values + place * kKvBlock * p.value;
  for (int at = thread; at < rows * p.value; at += kThreads) {
    values[at] = x[at / p.value * row + p.nope + at % p.value];
  }
}

__global__ void rope_query_kernel(const RopeQueryParams p) {
  follow_previous_kernel();
  turn_pair(p, this_item());
}

// A block of 128 inputs of a row for each thread block of as many threads; y may be x. Rows are
// those up to a group's last slot, of which the first is slot `first`; `last` null: all.
__global__ void __launch_bounds__(kScaleBlock)
    quantise_kernel(const QuantiseParams p, const Group* last, int first) {
  follow_previous_kernel();
  __shared__ float warp_largest[kScaleBlock / 32];
  const std::int64_t row = blockIdx.x;
  if (last != nullptr && row >= last->end - first) return;  // the whole block does
  const int thread = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.y) * kScaleBlock + thread;
  const float x = i < p.width ? p.x[row * p.ldx + i] : 0.0F;
  float largest = fabsf(x);
  for (int step = 16; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
  }
  if (thread % 32 == 0) warp_largest[thread / 32] = largest;
  __syncthreads();
  for (int w = 0; w < kScaleBlock / 32; ++w) largest = fmaxf(largest, warp_largest[w]);
  const float scale = activation_scale_of(largest, p.power_of_two);
  const float factor = p.factor != nullptr ? p.factor[row] : 1.0F;
  const float value = e4m3_quotient_of(x, scale);
  if (p.y_fp8.values != nullptr) {
    const Fp8Rows& to = p.y_fp8;
    to.values[row * to.ld + i] = bits_of_e4m3(value);
    if (thread == 0) to.scales[row * (to.ld / kScaleBlock) + blockIdx.y] = scale * factor;
  }
  if (i < p.width) p.y[row * p.ldy + i] = value * scale * factor;
}

dim3 quantise_blocks(const QuantiseParams& p) {
  return dim3(static_cast<unsigned>(p.rows),
              static_cast<unsigned>((p.width + kScaleBlock - 1) / kScaleBlock));
}

}  // namespace

void embedding(const EmbeddingParams& p, Stream stream) {
  const auto items = static_cast<std::int64_t>(p.rows) * p.width;
  const auto launch = [&](auto kernel) {
    launch_early(kernel, blocks_for(items), kThreads, 0, stream, p);
  };
  if (p.dtype == DType::kInt8) {
    launch(embedding_of_integers_kernel<DType::kInt8>);
  } else if (p.dtype == DType::kInt4) {
    launch(embedding_of_integers_kernel<DType::kInt4>);
  } else {
    launch(embedding_kernel);
  }
}

void tree_sum(const TreeSumParams& p, Stream stream) {
  launch_early(tree_sum_kernel, blocks_for(p.count), kThreads, 0, stream, p);
}

void combine(const CombineParams& p, Stream stream) {
  if (combines_in_fours(p)) {
    launch_combine<kCombineColumns>(p, stream);
  } else {
    launch_combine<1>(p, stream);
  }
}

void heads_expand(const HeadsExpandParams& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>((p.rows + kKvBlock - 1) / kKvBlock),
                  static_cast<unsigned>(p.heads));
  launch_early(heads_expand_kernel, grid, kThreads, 0, stream, p);
}

void rope_query(const RopeQueryParams& p, Stream stream) {
  if (turns_in_fours(p)) return rope_query_fours(p, stream);
  const auto items = static_cast<std::int64_t>(p.tokens) * p.heads * p.rope.pairs;
  launch_early(rope_query_kernel, blocks_for(items), kThreads, 0, stream, p);
}

void quantise(const QuantiseParams& p, Stream stream) {
  const Group* const last = nullptr;
  launch_early(quantise_kernel, quantise_blocks(p), kScaleBlock, 0, stream, p, last, 0);
}

void quantise_slots(const QuantiseParams& params, const GroupExpertsParams& routing,
                    Stream stream) {
  QuantiseParams p = params;
  p.rows = routing.tokens * routing.top_k;  // the most that there can be
  p.factor = routing.weight + routing.tokens;
  const Group* const last = routing.groups + routing.experts;
  launch_early(quantise_kernel, quantise_blocks(p), kScaleBlock, 0, stream, p, last,
               routing.tokens);
}

}  // namespace dsm::kernels::cuda
