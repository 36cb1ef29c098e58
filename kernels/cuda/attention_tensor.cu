// Attention over a KV cache in BF16 or FP8 on tensor cores, for latent and grouped-query attention
// alike: the splits of attention.cu, with scores and sums by mma.m16n8k16.
//
// A block of the cache is laid out as the operand B (KvLayer): keys are a panel of 64 positions,
// and a pair of positions of a value stands side by side. So both go from memory to tensor cores
// without shared memory. FP8 becomes BF16 on the way, exactly, since its scales are powers of two.
// The rows of an item, 16 or 32 (token, head) pairs that share what is read, are the operand A:
// their queries and then their exponentials go in as two BF16 terms (value and remainder), or as
// one where the rank is run loosely. Sums are FP32.
//
// Which row is in which tile changes no bit of it, and positions that it does not attend to are
// exact zeros.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/kv_cache.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kWarps = kAttentionThreads / 32;
// Products that a warp makes at a time: 32 columns.
constexpr int kHalfProducts = kProducts / 2;
constexpr int kHalfColumns = kPanel / 2;
static_assert(kWarps * kHalfColumns == kSplitPositions, "a warp for each 32 scores of a row");
// Floats from one row's scores to the next: four more, to keep lanes on different banks.
constexpr int kScoreStride = kSplitPositions + 4;

// The operand B of 16 inputs and 32 columns.
struct Half {
  std::uint32_t v[kHalfProducts][2];
};
// Sums of 16 rows and 32 columns.
struct HalfSums {
  float v[kHalfProducts][4] = {};
};

// Two FP8 values times a scale each (BF16, stored times 2^120) as BF16, exactly: as
// bf16_pair_of_e4m3(), with the scale in its multiplication.
__device__ std::uint32_t scaled_pair(std::uint32_t first, std::uint32_t second,
                                     std::uint32_t scales) {
  const std::uint32_t bytes = first << 8 | second << 24;
  const std::uint32_t small = (bytes & 0x80008000U) | (bytes & 0x7f007f00U) >> 4;
#if defined(__CUDA_ARCH__)
  return fma_bf16x2(small, scales, 0x80008000U);  // -0 twice, which changes no sum
#else
  return as_bits(first_of(small) * first_of(scales)) >> 16 |
         (as_bits(second_of(small) * second_of(scales)) & 0xffff0000U);
#endif
}
// A power of two as BF16, in the low half.
__device__ std::uint32_t bf16_of_scale(float scale) {
  return as_bits(scale) >> 16;
}

// Dimensions [at, at + 16) of the keys of one block and head, positions 32 half .. + 31.
template <DType kType>
__device__ Half load_keys(const KeyBlock<kType>& keys, int at, int half, int lane) {
  Half b;
  const int column = half * kHalfColumns + lane / 4 * 4;
  const int first = at + lane % 4 * 4;
  if (kType == DType::kBF16 || at >= keys.scaled) {
    const auto* pairs = reinterpret_cast<const std::uint32_t*>(
        keys.data + static_cast<std::int64_t>(keys.scaled) * kKvBlock);
    for (int p = 0; p < 2; ++p) {
      const Four<std::uint32_t> four =
          load_four(pairs + ((first - keys.scaled) / 2 + p) * kKvBlock + column);
      for (int j = 0; j < kHalfProducts; ++j) b.v[j][p] = four.v[j];
    }
    return b;
  }
  const Four<float> scales = load_four(keys.scales + at / kScaleBlock * kKvBlock + column);
  for (int p = 0; p < 2; ++p) {
    const auto* row = reinterpret_cast<const std::uint8_t*>(keys.data) +
                      static_cast<std::int64_t>(first + 2 * p) * kKvBlock + column;
    const Four<std::uint8_t> even = load_four(row);
    const Four<std::uint8_t> odd = load_four(row + kKvBlock);
    for (int j = 0; j < kHalfProducts; ++j) {
      const std::uint32_t scale = bf16_of_scale(scales.v[j]);
      b.v[j][p] = scaled_pair(even.v[j], odd.v[j], scale | scale << 16);
    }
  }
  return b;
}

// Positions [at, at + 16) of the values of one block and head, zeros from `seen` on (what stands
// there was never written), columns `first` .. + 31, zeros past the last.
template <DType kType>
__device__ Half load_values(const ValueBlock<kType>& values, int at, int seen, int first,
                            int lane) {
  Half b = {};
  const int column = first + lane / 4 * 4;
  if (column >= values.width) return b;
  for (int p = 0; p < 2; ++p) {
    const int slot = at + lane % 4 * 4 + 2 * p;
    if (slot >= seen) continue;
    const bool both = slot + 1 < seen;
    if constexpr (kType == DType::kBF16) {
      const Four<std::uint32_t> four =
          load_four(reinterpret_cast<const std::uint32_t*>(values.data) +
                    static_cast<std::int64_t>(slot / 2) * values.width + column);
      for (int j = 0; j < kHalfProducts; ++j) {
        b.v[j][p] = both ? four.v[j] : four.v[j] & 0xffffU;
      }
    } else {
      const auto* row = reinterpret_cast<const std::uint8_t*>(values.data) +
                        static_cast<std::int64_t>(slot) * values.width + column;
      const float* scale = values.scales + column / kScaleBlock * kKvBlock + slot;
      const Four<std::uint8_t> even = load_four(row);
      const Four<std::uint8_t> odd = both ? load_four(row + values.width) : Four<std::uint8_t>{};
      const std::uint32_t scales =
          bf16_of_scale(scale[0]) | (both ? bf16_of_scale(scale[1]) << 16 : 0U);
      for (int j = 0; j < kHalfProducts; ++j) b.v[j][p] = scaled_pair(even.v[j], odd.v[j], scales);
    }
  }
  return b;
}

__device__ void multiply(HalfSums& sums, const FragmentA& a, const Half& b) {
#pragma unroll
  for (int j = 0; j < kHalfProducts; ++j) mma_bf16(sums.v[j], a.v, b.v[j]);
}

// What a thread block keeps in shared memory: the queries as operands A [terms][tiles][steps of 16
// dimensions][lane], and scores [rows][kScoreStride].
template <int kTiles, int kTerms>
struct Shared {
  Four<std::uint32_t>* query;
  float* score;
  int steps;

  static int bytes(int key_dim) {
    return kTerms * kTiles * key_dim / kStepInputs * 32 * static_cast<int>(sizeof(*query)) +
           kTiles * kTileRows * kScoreStride * static_cast<int>(sizeof(float));
  }
  __device__ Shared(Four<std::uint32_t>* memory, int key_dim)
      : query(memory), steps(key_dim / kStepInputs) {
    score = reinterpret_cast<float*>(query + kTerms * kTiles * steps * 32);
  }
  __device__ int at(int term, int tile, int step, int lane) const {
    return ((term * kTiles + tile) * steps + step) * 32 + lane;
  }
  __device__ void put(int i, const FragmentA& a) const {
    query[i] = {{a.v[0], a.v[1], a.v[2], a.v[3]}};
  }
  __device__ FragmentA get(int i) const {
    const Four<std::uint32_t> four = query[i];
    return {{four.v[0], four.v[1], four.v[2], four.v[3]}};
  }
};

// The queries of the item's rows; a row past them counts as zeros.
template <int kTiles, int kTerms>
__device__ void take_queries(const AttentionParams& p, const AttentionItem& item,
                             const Shared<kTiles, kTerms>& shared) {
  const int rows = item.row_end - item.row_begin;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto query_of = [&](int r) {
    return r < rows ? p.query + row_of_item(p, item, r) * p.kv.key_dim : nullptr;
  };
  for (int unit = warp; unit < kTiles * shared.steps; unit += kWarps) {
    const int tile = unit / shared.steps;
    const int step = unit % shared.steps;
    const int row = tile * kTileRows + lane / 4;
    const Activations x =
        load_activations(query_of(row), query_of(row + 8), first_input(step * kStepInputs, lane),
                         p.kv.key_dim, true);
    const FragmentA high = rounded(x);
    shared.put(shared.at(0, tile, step, lane), high);
    if constexpr (kTerms == 2) shared.put(shared.at(1, tile, step, lane), remainder(x, high));
  }
}

// This warp's 32 positions of all rows' scores.
template <DType kType, int kTiles, int kTerms>
__device__ void make_scores(const AttentionParams& p, const std::int64_t* block,
                            const Shared<kTiles, kTerms>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (block[warp / 2] == kUnread) return;
  const KeyBlock<kType> keys(p.kv, block[warp / 2]);
  HalfSums sums[kTiles];
  Half next = load_keys(keys, 0, warp % 2, lane);
  for (int step = 0; step < shared.steps; ++step) {
    const Half b = next;
    if (step + 1 < shared.steps) {
      next = load_keys(keys, (step + 1) * kStepInputs, warp % 2, lane);
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int term = 0; term < kTerms; ++term) {
        multiply(sums[t], shared.get(shared.at(term, t, step, lane)), b);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = t * kTileRows + row_of(i, lane);
      const int position = warp * kHalfColumns + column_of(0, i, lane);
      const auto& v = sums[t].v;
      *reinterpret_cast<Four<float>*>(shared.score + row * kScoreStride + position) = {
          {v[0][i] * p.scale, v[1][i] * p.scale, v[2][i] * p.scale, v[3][i] * p.scale}};
    }
  }
}

// The sums of one tile of rows over the split's first `used` positions, columns `first` .. + 31.
template <DType kType, int kTerms>
__device__ HalfSums sum_values(const AttentionParams& p, const std::int64_t* block, int used,
                               const float* score, int first) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* row = score + lane / 4 * kScoreStride;
  HalfSums sums;
  for (int begin = 0; begin < used; begin += kKvBlock) {
    if (block[begin / kKvBlock] == kUnread) continue;
    const ValueBlock<kType> values(p.kv, block[begin / kKvBlock]);
    const int seen = used - begin < kKvBlock ? used - begin : kKvBlock;
    for (int at = 0; at < seen; at += kStepInputs) {
      const Half b = load_values(values, at, seen, first, lane);
      const Activations x = load_activations(row, row + 8 * kScoreStride,
                                             first_input(begin + at, lane), kSplitPositions, true);
      const FragmentA high = rounded(x);
      multiply(sums, high, b);
      if constexpr (kTerms == 2) multiply(sums, remainder(x, high), b);
    }
  }
  return sums;
}

template <DType kType, int kTiles, int kTerms>
__global__ void __launch_bounds__(kAttentionThreads)
    tensor_split_kernel(const AttentionLaunch launch) {
  constexpr int kRows = kTiles * kTileRows;
  __shared__ SplitBlocks<kRows> blocks;
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + static_cast<int>(blockIdx.x)];
  const int rows = item.row_end - item.row_begin;
  const int split = static_cast<int>(blockIdx.y);
  const int left = position_of(p, item, rows - 1) + 1 - split * kSplitPositions;
  if (left <= 0) return;  // the whole thread block does
  const int used = left < kSplitPositions ? left : kSplitPositions;
  const Shared<kTiles, kTerms> shared(dynamic_shared<Four<std::uint32_t>>(), p.kv.key_dim);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;

  blocks.find(p, item, split);
  take_queries(p, item, shared);
  __syncthreads();
  make_scores<kType>(p, blocks.block, shared);
  __syncthreads();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * launch.item_rows;
  for (int r = warp; r < rows; r += kWarps) {
    const std::int64_t at = (first + r) * launch.splits + split;
    exponentials(
        blocks.mask[r], [&](int i) -> float& { return shared.score[r * kScoreStride + i]; },
        launch.best + at, launch.total + at);
  }
  __syncthreads();
  const int width = p.kv.value_dim;
  const int parts = (width + kHalfColumns - 1) / kHalfColumns;
  for (int unit = warp; unit < kTiles * parts; unit += kWarps) {
    const int tile = unit % kTiles;
    const int part = unit / kTiles * kHalfColumns;
    if (tile * kTileRows >= rows) continue;
    const HalfSums sums = sum_values<kType, kTerms>(
        p, blocks.block, used, shared.score + tile * kTileRows * kScoreStride, part);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = tile * kTileRows + row_of(i, lane);
      const int column = part + column_of(0, i, lane);
      if (r >= rows || column >= width) continue;
      float* to = launch.partial + ((first + r) * launch.splits + split) * width + column;
      *reinterpret_cast<Four<float>*>(to) = {
          {sums.v[0][i], sums.v[1][i], sums.v[2][i], sums.v[3][i]}};
    }
  }
}

template <DType kType, int kTiles, int kTerms>
void launch_tiles(const AttentionLaunch& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.items), static_cast<unsigned>(p.splits));
  launch(tensor_split_kernel<kType, kTiles, kTerms>, grid, kAttentionThreads,
         Shared<kTiles, kTerms>::bytes(p.params.kv.key_dim), stream, p);
}

template <DType kType>
void launch_type(const AttentionLaunch& p, Stream stream) {
  if (p.item_rows <= kTileRows && p.exact) {
    launch_tiles<kType, 1, 2>(p, stream);
  } else if (p.item_rows <= kTileRows) {
    launch_tiles<kType, 1, 1>(p, stream);
  } else if (p.exact) {
    launch_tiles<kType, 2, 2>(p, stream);
  } else {
    launch_tiles<kType, 2, 1>(p, stream);
  }
}

}  // namespace

void tensor_splits(const AttentionLaunch& p, Stream stream) {
  if (p.params.kv.dtype == DType::kBF16) {
    launch_type<DType::kBF16>(p, stream);
  } else {
    launch_type<DType::kF8E4M3>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
