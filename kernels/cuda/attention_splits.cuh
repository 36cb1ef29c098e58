// A split of an item of attention, a block of the cache, by a thread block: each row's maximum, its
// sum of exponentials and its part of the output.
//
// Keys and values go from memory to tensor cores without shared memory, and a warp's share of both
// is asked for before the first product: its 8 positions of keys, and 8 columns of values in each
// of two products. Which warp has what changes no bit.
#pragma once

#include "kernels/cuda/attention.cuh"

namespace dsm::kernels::cuda {

// What is loaded some elements before it is used, of `count` elements. Zeros at first: in a loop
// over splits (megakernel_attention.cuh) what was left of the one before would have to be kept.
template <int kAhead, class T>
struct AskedAhead {
  T v[kAhead] = {};

  template <class Load>
  __device__ __forceinline__ void begin(int count, const Load& load) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i < count) v[i] = load(i);
    }
  }
  // use(i, what load(i) gave) for each.
  template <class Load, class Use>
  __device__ __forceinline__ void each(int count, const Load& load, const Use& use) {
    for (int first = 0; first < count; first += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first + i >= count) break;
        const T now = v[i];
        if (first + i + kAhead < count) v[i] = load(first + i + kAhead);
        use(first + i, now);
      }
    }
  }
};
// Steps of keys, and products of values, that a warp has on their way: 32 registers each.
inline constexpr int kKeysAhead = 8;
inline constexpr int kValuesAhead = 2;

// All positions of 8 columns of values.
template <DType kType>
struct ValueColumns {
  KvWords<kType> step[kBlockSteps] = {};
};

// What a thread block keeps in shared memory: queries as operands A [steps of 16
// dimensions][tiles], and scores [rows][kScoreStride].
template <int kTiles, int kTerms>
struct SplitShared {
  uint4* query;
  float* score;
  int steps;

  static constexpr int bytes(int key_dim) {
    return key_steps(key_dim) * kTiles * kOperandLanes<kTerms> * static_cast<int>(sizeof(uint4)) +
           kTiles * kTileRows * kScoreStride * static_cast<int>(sizeof(float));
  }
  __device__ SplitShared(uint4* memory, int key_dim) : query(memory), steps(key_steps(key_dim)) {
    score = reinterpret_cast<float*>(operand(steps, 0));
  }
  __device__ uint4* operand(int step, int tile) const {
    return query + (step * kTiles + tile) * kOperandLanes<kTerms>;
  }
};

template <int kTiles, int kTerms>
__device__ void take_queries(const AttentionParams& p, const AttentionItem& item,
                             const SplitShared<kTiles, kTerms>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int unit = warp; unit < kTiles * shared.steps; unit += kAttentionWarps) {
    const int tile = unit % kTiles;
    const int step = unit / kTiles;
    put(load_queries<kTerms>(p, item, tile * kTileRows, step, lane), shared.operand(step, tile),
        lane);
  }
}

// Sums of all rows times one product's columns.
template <int kTiles>
struct RowSums {
  float v[kTiles][1][4] = {};
};

// This warp's 8 positions of all rows' scores; D's registers are neighbours in pairs.
template <int kTiles, int kTerms>
__device__ void put_scores(const RowSums<kTiles>& sums, const SplitShared<kTiles, kTerms>& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int position = static_cast<int>(threadIdx.x) / 32 * kProductColumns + lane % 4 * 2;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = t * kTileRows + lane / 4 + half * 8;
      const auto& v = sums.v[t][0];
      *reinterpret_cast<float2*>(shared.score + row * kScoreStride + position) =
          make_float2(v[2 * half], v[2 * half + 1]);
    }
  }
}

// Turns the scores of row `row` into exponentials, with zeros where it does not attend; 16 lanes
// of a warp, each with four positions of it. `best` and `total`: where the row's maximum and sum
// go.
template <int kTerms>
__device__ void exponentials(std::uint64_t mask, float scale, float* score, float* best,
                             float* total, bool there) {
  const int lane = static_cast<int>(threadIdx.x) % 16;
  const auto position = [lane](int i) { return value_slot(lane / 4, lane, i / 2) + i % 2; };
  float value[4];
  float top = as_float(0xff800000U);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    value[i] = (mask >> position(i) & 1) != 0 ? score[position(i)] : as_float(0xff800000U);
    top = fmaxf(top, value[i]);
  }
  for (int step = 8; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
  const float maximum = maximum_of(top, scale);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    value[i] = exponential_of<kTerms>(value[i], scale, maximum);
    score[position(i)] = value[i];
  }
  float sum = sum_of_four(value[0], value[1], value[2], value[3]);
  for (int step = 4; step <= 8; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  for (int step = 1; step <= 2; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (lane == 0 && there) {
    *best = maximum;
    *total = sum;
  }
}

// Exponentials of 16 rows as operand A: positions of a step.
template <int kTerms>
__device__ __forceinline__ RowOperand<kTerms> load_exponentials(const float* score, int step,
                                                                int lane) {
  const float* row = score + lane / 4 * kScoreStride;
  Activations x;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto pair = *reinterpret_cast<const float2*>(row + r * 8 * kScoreStride +
                                                         value_slot(step, lane, half));
      x.v[r][2 * half] = pair.x;
      x.v[r][2 * half + 1] = pair.y;
    }
  }
  return row_operand<kTerms>(x);
}

// Whether a row attends to any position of the split; the whole thread block asks. If none does,
// that is said of all rows.
__device__ inline bool any_attends(const AttentionLaunch& launch, const AttentionItem& item,
                                   int split, std::int64_t first) {
  const AttentionParams& p = launch.params;
  if (p.selection.words == nullptr) return true;  // the last one does
  const int row = static_cast<int>(threadIdx.x);
  const bool there = row < item.row_end - item.row_begin;
  const bool any = __syncthreads_or(there && block_mask(p, item, row, split) != 0 ? 1 : 0) != 0;
  if (!any && there) launch.total[(first + row) * launch.splits + split] = 0.0F;
  return any;
}

// `memory`: SplitShared::bytes() of shared memory, of which others may still read when this
// returns.
template <DType kType, int kTiles, int kTerms>
__device__ __forceinline__ void attend_to_split(const AttentionLaunch& launch, int item_number,
                                                int split, uint4* memory) {
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + item_number];
  const int rows = item.row_end - item.row_begin;
  // Rows rise in position: the last one sees most.
  const int left = position_of(p, item, rows - 1) + 1 - split * kSplitPositions;
  if (left <= 0) return;  // the whole thread block does
  const std::int64_t first = static_cast<std::int64_t>(item_number) * launch.item_rows;
  if (!any_attends(launch, item, split, first)) return;  // and here
  const int seen = left < kSplitPositions ? left : kSplitPositions;
  const SplitShared<kTiles, kTerms> shared(memory, p.kv.key_dim);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const KeyBlock<kType> keys(p.kv, cache_block(p, item, split));
  const ValueBlock<kType> values(p.kv, cache_block(p, item, split));

  const auto key = [&](int step) { return load_key<kType>(keys, p.kv.key_dim, step, warp, lane); };
  const auto value = [&](int n) {
    ValueColumns<kType> columns;
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
      columns.step[step] = load_value<kType>(values, seen, step, warp + n * kAttentionWarps, lane);
    }
    return columns;
  };
  const int all_products = p.kv.value_dim / kProductColumns;
  const int products = (all_products - warp + kAttentionWarps - 1) / kAttentionWarps;
  AskedAhead<kKeysAhead, KvWords<kType>> keys_ahead;
  AskedAhead<kValuesAhead, ValueColumns<kType>> values_ahead;
  keys_ahead.begin(shared.steps, key);
  values_ahead.begin(products, value);
  take_queries(p, item, shared);
  __syncthreads();
  RowSums<kTiles> scores;
  keys_ahead.each(shared.steps, key, [&](int step, const KvWords<kType>& words) {
    const KvOperand<kType> b[1] = {operand<kType>(words)};
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      multiply<kType, kTerms, 1>(scores.v[t], get<kTerms>(shared.operand(step, t), lane), b);
    }
  });
  put_scores(scores, shared);
  __syncthreads();
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int r = t * kTileRows + static_cast<int>(threadIdx.x) / 16;
    const std::int64_t at = (first + r) * launch.splits + split;
    exponentials<kTerms>(r < rows ? block_mask(p, item, r, split) : 0, score_scale<kTerms>(p),
                         shared.score + r * kScoreStride, launch.best + at, launch.total + at,
                         r < rows);
  }
  __syncthreads();
  values_ahead.each(products, value, [&](int n, const ValueColumns<kType>& columns) {
    RowSums<kTiles> sums;
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
      const KvOperand<kType> b[1] = {operand<kType>(columns.step[step])};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        multiply<kType, kTerms, 1>(
            sums.v[t],
            load_exponentials<kTerms>(shared.score + t * kTileRows * kScoreStride, step, lane), b);
      }
    }
    const int column = (warp + n * kAttentionWarps) * kProductColumns + lane % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = t * kTileRows + lane / 4 + half * 8;
        if (r >= rows) continue;
        float* to =
            launch.partial + ((first + r) * launch.splits + split) * p.kv.value_dim + column;
        const auto& v = sums.v[t][0];
        *reinterpret_cast<float2*>(to) = make_float2(v[2 * half], v[2 * half + 1]);
      }
    }
  });
}

}  // namespace dsm::kernels::cuda
