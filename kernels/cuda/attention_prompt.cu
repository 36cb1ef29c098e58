// Attention of a prompt's rows: a thread block takes up to 128 (token, head) pairs of one sequence
// and KV head, 16 for each warp, and goes through the blocks of the cache up to the last pair's
// position. Sums of a row stay in its warp's registers; merging a block's part has the order and
// the bits of splits that are merged later (attention.cuh).
//
// Keys and values of a block are put into shared memory once for all warps (prompt_blocks.cuh). The
// next block's keys, and then its values, are on their way from memory while the tensor cores work
// on the other, so two barriers for a block are all the waiting there is.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/prompt_blocks.cuh"

namespace dsm::kernels::cuda {
namespace {

// Groups of columns in a row's output at most, and those whose products are made side by side, so
// that a tensor core need not wait for its last sum.
constexpr int kGroups = kMaxPromptValueDim / kGroupColumns;
constexpr int kSideBySide = 2;
constexpr float kMinusInfinity = -__builtin_huge_valf();

// Scores of a block and then exponentials: D's registers of its products, of which j has the
// positions 32 (j / 4) + 4c + j % 4 in its columns c.
using Scores = float[kBlockProducts][4];

// A warp's two rows of a lane, g and g + 8 of its 16.
template <int kTerms>
struct Rows {
  int position[2];  // the last that each attends to; -1: there is no such row
  float best[2] = {kNothing, kNothing};
  float total[2] = {};
  float sum[kGroups][kFour][4] = {};  // of product j of a group columns 32 group + 4c + j

  // Scores of what rows do not attend to, in a block that begins with position `begin`, become
  // minus infinity.
  __device__ __forceinline__ void mask(Scores& score, int begin) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < kBlockProducts; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = begin + j / kFour * 32 + (lane % 4 * 2 + i % 2) * kFour + j % kFour;
        if (at > position[i / 2]) score[j][i] = kMinusInfinity;
      }
    }
  }

  // Scores become exponentials in their place. Gives how the rows go on.
  __device__ __forceinline__ void exponentials(Scores& score, float scale, Factors (&factors)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = kMinusInfinity;
#pragma unroll
      for (int j = 0; j < kBlockProducts; ++j) {
        top = fmaxf(top, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
      }
      for (int step = 1; step <= 2; step *= 2) {
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
      }
      const float maximum = maximum_of(top, scale);
      float of_step[kBlockSteps];
#pragma unroll
      for (int s = 0; s < kBlockSteps; ++s) {
        float e[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& value = score[2 * s + i % 2][2 * half + i / 2];
          value = exponential_of<kTerms>(value, scale, maximum);
          e[i] = value;
        }
        of_step[s] = sum_of_four(e[0], e[1], e[2], e[3]);
      }
      float all = (of_step[0] + of_step[1]) + (of_step[2] + of_step[3]);
      for (int step = 1; step <= 2; step *= 2) all += __shfl_xor_sync(kAllLanes, all, step);
      const bool attends = all != 0.0F;
      factors[half] = attends ? factors_of<kTerms>(best[half], maximum) : Factors{};
      total[half] = merged(total[half], all, factors[half]);
      if (attends) best[half] = fmaxf(best[half], maximum);
    }
  }

  // The exponentials of a step as operand A: D's registers of two products are A's.
  static __device__ __forceinline__ RowOperand<kTerms> operand(const Scores& score, int step) {
    const auto& a = score[2 * step];
    const auto& b = score[2 * step + 1];
    return row_operand<kTerms>({{{a[0], b[0], a[1], b[1]}, {a[2], b[2], a[3], b[3]}}});
  }
};

template <DType kType, int kTerms>
__device__ __forceinline__ void make_scores(const uint4* query, int steps, const KeyTable& keys,
                                            Scores& score) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (auto& product : score) {
#pragma unroll
    for (float& sum : product) sum = 0.0F;
  }
#pragma unroll 2
  for (int step = 0; step < steps; ++step) {
    const auto a = get<kTerms>(query + step * kOperandLanes<kTerms>, lane);
    KvOperand<kType> b[kBlockProducts];
#pragma unroll
    for (int group = 0; group < kBlockProducts / kFour; ++group) {
      keys.take<kType>(step, group, lane, b + group * kFour);
    }
    multiply<kType, kTerms>(score, a, b);
  }
}

template <DType kType, int kTerms>
__device__ __forceinline__ void add_values(const Scores& score, const ValueTable& values, int width,
                                           const Factors (&factors)[2], Rows<kTerms>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  RowOperand<kTerms> a[kBlockSteps];
#pragma unroll
  for (int step = 0; step < kBlockSteps; ++step) a[step] = Rows<kTerms>::operand(score, step);
#pragma unroll
  for (int first = 0; first < kGroups; first += kSideBySide) {
    if (first * kGroupColumns >= width) break;
    float sums[kSideBySide * kFour][4] = {};
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
      // Past the last column whatever stands there is multiplied, and not used.
      KvOperand<kType> b[kSideBySide * kFour];
#pragma unroll
      for (int g = 0; g < kSideBySide; ++g) {
        values.take<kType>(step, first + g, lane, b + g * kFour);
      }
      multiply<kType, kTerms>(sums, a[step], b);
    }
#pragma unroll
    for (int j = 0; j < kSideBySide * kFour; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& sum = rows.sum[first + j / kFour][j % kFour][i];
        // What a row does not attend to may be no number.
        if (factors[i / 2].take != 0.0F) sum = merged(sum, sums[j][i], factors[i / 2]);
      }
    }
  }
}

// Rows of an item that a thread block takes.
__device__ __forceinline__ AttentionItem part_of(const AttentionItem& item, int part, int rows) {
  AttentionItem mine = item;
  mine.row_begin += part * rows;
  if (mine.row_end > mine.row_begin + rows) mine.row_end = mine.row_begin + rows;
  return mine;
}

template <int kTerms>
__device__ __forceinline__ void write(const AttentionParams& p, const AttentionItem& item,
                                      const Rows<kTerms>& rows) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp * kTileRows + lane / 4 + half * 8;
    if (r >= item.row_end - item.row_begin) continue;
    float* out = p.out + row_of_item(p, item, r) * p.kv.value_dim;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int column = group * kGroupColumns + lane % 4 * 2 * kFour;
      if (column >= p.kv.value_dim) break;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const auto& v = rows.sum[group];
        const float total = rows.total[half];
        const int at = 2 * half + i;
        *reinterpret_cast<float4*>(out + column + i * kFour) =
            make_float4(v[0][at] / total, v[1][at] / total, v[2][at] / total, v[3][at] / total);
      }
    }
  }
}

template <DType kType>
inline constexpr int kRows = prompt_rows(kType);
template <DType kType>
inline constexpr int kWarps = kRows<kType> / kTileRows;
template <DType kType>
inline constexpr int kThreads = kWarps<kType> * 32;
// Thread blocks of a processor: 8 warps, which is what registers are there for.
template <DType kType>
inline constexpr int kBlocks = 8 / kWarps<kType>;

template <DType kType, int kTerms>
__global__ void __launch_bounds__(kThreads<kType>, kBlocks<kType>)
    prompt_kernel(const AttentionLaunch launch) {
  follow_previous_kernel();
  constexpr int kParts = kPromptRows / kRows<kType>;
  const AttentionParams& p = launch.params;
  const int block = static_cast<int>(blockIdx.x);
  const AttentionItem item =
      part_of(p.items[launch.first_item + block / kParts], block % kParts, kRows<kType>);
  const int all_rows = item.row_end - item.row_begin;
  if (all_rows <= 0) return;  // the whole thread block does
  const int last = position_of(p, item, all_rows - 1);
  const int blocks = last / kKvBlock + 1;
  const int steps = key_steps(p.kv.key_dim);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;

  uint4* query = dynamic_shared<uint4>() + warp * steps * kOperandLanes<kTerms>;
  uint4* after_queries = dynamic_shared<uint4>() + kWarps<kType> * steps * kOperandLanes<kTerms>;
  TableFiller<kType, KeyTable, kThreads<kType>> keys{{after_queries, steps * 4}, {}};
  TableFiller<kType, ValueTable, kThreads<kType>> values{
      {after_queries + kKvTerms<kType> * keys.table.rows * KeyTable::kRowWords, kBlockSteps * 4},
      {}};
  const auto keys_of = [&](int b) {
    return KeySource<kType>{KeyBlock<kType>(p.kv, cache_block(p, item, b)), p.kv.key_dim};
  };
  const auto values_of = [&](int b) {
    return ValueSource<kType>{ValueBlock<kType>(p.kv, cache_block(p, item, b)),
                              last + 1 - b * kKvBlock};
  };

  Rows<kTerms> rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp * kTileRows + lane / 4 + half * 8;
    rows.position[half] = r < all_rows ? position_of(p, item, r) : -1;
  }
  // Rows rise in position: what all of the warp's see, and the last of them.
  const int least =
      (warp + 1) * kTileRows <= all_rows ? __shfl_sync(kAllLanes, rows.position[0], 0) : -1;
  const int most = warp * kTileRows < all_rows
                       ? __shfl_sync(kAllLanes, rows.position[1] >= 0 ? rows.position[1] : last, 31)
                       : -1;

  keys.ask(keys_of(0));
  for (int step = 0; step < steps; ++step) {
    put(load_queries<kTerms>(p, item, warp * kTileRows, step, lane),
        query + step * kOperandLanes<kTerms>, lane);
  }
  keys.put(keys_of(0));
  __syncthreads();
  for (int b = 0; b < blocks; ++b) {
    const int begin = b * kKvBlock;
    const bool attends = begin <= most;  // the whole warp's
    Scores score;
    Factors factors[2];
    values.ask(values_of(b));
    if (attends) {
      make_scores<kType, kTerms>(query, steps, keys.table, score);
      if (begin + kKvBlock - 1 > least) rows.mask(score, begin);
      rows.exponentials(score, score_scale<kTerms>(p), factors);
    }
    values.put(values_of(b));
    __syncthreads();  // these values are there, these keys have been read
    if (b + 1 < blocks) keys.ask(keys_of(b + 1));
    if (attends) {
      add_values<kType, kTerms>(score, values.table, p.kv.value_dim, factors, rows);
    }
    if (b + 1 < blocks) keys.put(keys_of(b + 1));
    __syncthreads();  // the next keys are there, these values have been read
  }
  write(p, item, rows);
}

template <DType kType>
void launch_type(const AttentionLaunch& p, Stream stream) {
  const auto bytes = static_cast<int>(prompt_shared_bytes(p.params.kv, p.exact));
  const auto grid = static_cast<unsigned>(p.items * (kPromptRows / kRows<kType>));
  if (p.exact) {
    launch_early(prompt_kernel<kType, 2>, grid, kThreads<kType>, bytes, stream, p);
  } else {
    launch_early(prompt_kernel<kType, 1>, grid, kThreads<kType>, bytes, stream, p);
  }
}

}  // namespace

void attention_of_prompts(const AttentionLaunch& p, Stream stream) {
  switch (p.params.kv.dtype) {
    case DType::kF32:
      return launch_type<DType::kF32>(p, stream);
    case DType::kBF16:
      return launch_type<DType::kBF16>(p, stream);
    default:
      return launch_type<DType::kF8E4M3>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
