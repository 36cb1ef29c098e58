// Attention of a prompt's rows: a thread block takes 128 (token, head) pairs of one sequence and KV
// head, 16 for each warp, and goes through the blocks of the cache up to the last pair's position.
// Sums of a row stay in its warp's registers; merging a block's part has the order and the bits of
// splits that are merged later (attention.cuh).
//
// Keys and values of a block become operands once, for all warps, in shared memory. The words of
// the next block of keys, and then those of values, are on their way from memory while the tensor
// cores work on the other, so two barriers for a block are all the waiting there is.
#include "kernels/cuda/attention.cuh"

namespace dsm::kernels::cuda {
namespace {

// Products of 8 columns in a row's output at most.
constexpr int kValueProducts = kMaxPromptValueDim / kProductColumns;
// Products that are made side by side, so that a tensor core need not wait for its last sum.
constexpr int kSideBySide = 4;
// Operands of a warp whose words are on their way: of keys of 128 dimensions, and of as many
// columns of values, all.
constexpr int kUnitsAhead = 8;

// Operands of a block in shared memory, [units][lane], and those of the next that are on their way.
// load(unit) gives the words of one.
template <DType kType>
struct BlockOperands {
  KvOperand<kType>* operands;
  int units;
  KvWords<kType> words[kUnitsAhead];

  __device__ BlockOperands(void* memory, int count)
      : operands(static_cast<KvOperand<kType>*>(memory)), units(count) {}

  __device__ __forceinline__ int unit_of(int i) const {
    return static_cast<int>(threadIdx.x) / 32 + i * kAttentionWarps;
  }
  template <class Load>
  __device__ __forceinline__ void ask(const Load& load) {
#pragma unroll
    for (int i = 0; i < kUnitsAhead; ++i) {
      if (unit_of(i) < units) words[i] = load(unit_of(i));
    }
  }
  // What has been asked for, and the rest. Nobody may still read the last block's.
  template <class Load>
  __device__ __forceinline__ void put(const Load& load) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kUnitsAhead; ++i) {
      if (unit_of(i) < units) operands[unit_of(i) * 32 + lane] = operand<kType>(words[i]);
    }
    for (int i = kUnitsAhead; unit_of(i) < units; ++i) {
      operands[unit_of(i) * 32 + lane] = operand<kType>(load(unit_of(i)));
    }
  }
};

// A warp's two rows of a lane, g and g + 8 of its 16.
template <int kTerms>
struct Rows {
  int position[2];  // the last that each attends to; -1: there is no such row
  float best[2] = {kNothing, kNothing};
  float total[2] = {};
  float sum[kValueProducts][4] = {};

  // Scores of a block, in its place: exponentials, zeros where a row does not attend. Gives how the
  // rows go on. `begin`: the block's first position.
  __device__ __forceinline__ void exponentials(float (&score)[kBlockProducts][4], float scale,
                                               int begin, Factors (&factors)[2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int seen = position[half] + 1 - begin;
      const auto attends = [&](int j, int i) {
        return j * kProductColumns + lane % 4 * 2 + i < seen;
      };
      float top = as_float(0xff800000U);
#pragma unroll
      for (int j = 0; j < kBlockProducts; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& value = score[j][2 * half + i];
          value = attends(j, i) ? value * scale : as_float(0xff800000U);
          top = fmaxf(top, value);
        }
      }
      for (int step = 1; step <= 2; step *= 2) {
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
      }
      float of_step[kBlockSteps];
#pragma unroll
      for (int s = 0; s < kBlockSteps; ++s) {
        float e[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& value = score[2 * s + i / 2][2 * half + i % 2];
          value = attends(2 * s + i / 2, i % 2) ? exp_of(value - top) : 0.0F;
          e[i] = value;
        }
        of_step[s] = sum_of_four(e[0], e[1], e[2], e[3]);
      }
      float all = (of_step[0] + of_step[1]) + (of_step[2] + of_step[3]);
      for (int step = 1; step <= 2; step *= 2) all += __shfl_xor_sync(kAllLanes, all, step);
      factors[half] = all != 0.0F ? factors_of(best[half], top) : Factors{};
      total[half] = merged(total[half], all, factors[half]);
      if (all != 0.0F) best[half] = fmaxf(best[half], top);
    }
  }

  // The exponentials of a step as operand A: D's registers of two products are A's.
  static __device__ __forceinline__ RowOperand<kTerms> operand(
      const float (&score)[kBlockProducts][4], int step) {
    const auto& a = score[2 * step];
    const auto& b = score[2 * step + 1];
    return row_operand<kTerms>({{{a[0], a[1], b[0], b[1]}, {a[2], a[3], b[2], b[3]}}});
  }
};

template <DType kType, int kTerms>
__device__ __forceinline__ void make_scores(const uint4* query, int steps,
                                            const KvOperand<kType>* keys,
                                            float (&score)[kBlockProducts][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int step = 0; step < steps; ++step) {
    const auto a = get<kTerms>(query + step * kOperandLanes<kTerms>, lane);
#pragma unroll
    for (int first = 0; first < kBlockProducts; first += kSideBySide) {
      KvOperand<kType> b[kSideBySide];
      float sums[kSideBySide][4];
#pragma unroll
      for (int j = 0; j < kSideBySide; ++j) {
        b[j] = keys[(step * kBlockProducts + first + j) * 32 + lane];
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] = step == 0 ? 0.0F : score[first + j][i];
      }
      multiply<kType, kTerms>(sums, a, b);
#pragma unroll
      for (int j = 0; j < kSideBySide; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[first + j][i] = sums[j][i];
      }
    }
  }
}

// `values`: [steps][products].
template <DType kType, int kTerms>
__device__ __forceinline__ void add_values(const float (&score)[kBlockProducts][4],
                                           const KvOperand<kType>* values, int products,
                                           const Factors (&factors)[2], Rows<kTerms>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  RowOperand<kTerms> a[kBlockSteps];
#pragma unroll
  for (int step = 0; step < kBlockSteps; ++step) a[step] = Rows<kTerms>::operand(score, step);
#pragma unroll
  for (int first = 0; first < kValueProducts; first += kSideBySide) {
    if (first >= products) break;
    float sums[kSideBySide][4] = {};
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
      KvOperand<kType> b[kSideBySide];
#pragma unroll
      for (int j = 0; j < kSideBySide; ++j) {
        // Past the last product whatever stands there is multiplied, and not used.
        const int product = first + j < products ? first + j : products - 1;
        b[j] = values[(step * products + product) * 32 + lane];
      }
      multiply<kType, kTerms>(sums, a[step], b);
    }
#pragma unroll
    for (int j = 0; j < kSideBySide; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& sum = rows.sum[first + j][i];
        // What a row does not attend to may be no number.
        if (factors[i / 2].take != 0.0F) sum = merged(sum, sums[j][i], factors[i / 2]);
      }
    }
  }
}

template <DType kType, int kTerms>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    prompt_kernel(const AttentionLaunch launch) {
  follow_previous_kernel();
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + static_cast<int>(blockIdx.x)];
  const int all_rows = item.row_end - item.row_begin;
  const int last = position_of(p, item, all_rows - 1);
  const int blocks = last / kKvBlock + 1;
  const int steps = key_steps(p.kv.key_dim);
  const int products = p.kv.value_dim / kProductColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;

  uint4* query = dynamic_shared<uint4>() + warp * steps * kOperandLanes<kTerms>;
  uint4* end_of_queries = dynamic_shared<uint4>() + kAttentionWarps * steps * kOperandLanes<kTerms>;
  BlockOperands<kType> keys(end_of_queries, steps * kBlockProducts);
  BlockOperands<kType> values(keys.operands + keys.units * 32, kBlockSteps * products);
  // Words of block b: a unit is a step's product.
  const auto key_of = [&](int b) {
    const KeyBlock<kType> block(p.kv, cache_block(p, item, b));
    return [&p, block, lane](int unit) {
      return load_key<kType>(block, p.kv.key_dim, unit / kBlockProducts, unit % kBlockProducts,
                             lane);
    };
  };
  const auto value_of = [&](int b) {
    const ValueBlock<kType> block(p.kv, cache_block(p, item, b));
    const int left = last + 1 - b * kKvBlock;
    const int seen = left < kKvBlock ? left : kKvBlock;
    return [block, seen, products, lane](int unit) {
      return load_value<kType>(block, seen, unit / products, unit % products, lane);
    };
  };

  Rows<kTerms> rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp * kTileRows + lane / 4 + half * 8;
    rows.position[half] = r < all_rows ? position_of(p, item, r) : -1;
  }
  // Rows rise in position, so these are the last and see most.
  const int most = __shfl_sync(kAllLanes, rows.position[1] >= 0 ? rows.position[1] : last, 31);
  const bool any = warp * kTileRows < all_rows;

  keys.ask(key_of(0));
  for (int step = 0; step < steps; ++step) {
    put(load_queries<kTerms>(p, item, warp * kTileRows, step, lane),
        query + step * kOperandLanes<kTerms>, lane);
  }
  keys.put(key_of(0));
  __syncthreads();
  for (int b = 0; b < blocks; ++b) {
    const bool attends = any && b * kKvBlock <= most;  // the whole warp's
    float score[kBlockProducts][4];
    Factors factors[2];
    values.ask(value_of(b));
    if (attends) {
      make_scores<kType, kTerms>(query, steps, keys.operands, score);
      rows.exponentials(score, p.scale, b * kKvBlock, factors);
    }
    values.put(value_of(b));
    __syncthreads();  // these values are there, these keys have been read
    if (b + 1 < blocks) keys.ask(key_of(b + 1));
    if (attends) {
      add_values<kType, kTerms>(score, values.operands, products, factors, rows);
    }
    if (b + 1 < blocks) keys.put(key_of(b + 1));
    __syncthreads();  // the next keys are there, these values have been read
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp * kTileRows + lane / 4 + half * 8;
    if (r >= all_rows) continue;
    float* out = p.out + row_of_item(p, item, r) * p.kv.value_dim + lane % 4 * 2;
#pragma unroll
    for (int product = 0; product < kValueProducts; ++product) {
      if (product >= products) break;
      *reinterpret_cast<float2*>(out + product * kProductColumns) =
          make_float2(rows.sum[product][2 * half] / rows.total[half],
                      rows.sum[product][2 * half + 1] / rows.total[half]);
    }
  }
}

template <DType kType>
void launch_type(const AttentionLaunch& p, Stream stream) {
  const auto bytes = static_cast<int>(prompt_shared_bytes(p.params.kv, p.exact));
  const auto grid = static_cast<unsigned>(p.items);
  if (p.exact) {
    launch_early(prompt_kernel<kType, 2>, grid, kAttentionThreads, bytes, stream, p);
  } else {
    launch_early(prompt_kernel<kType, 1>, grid, kAttentionThreads, bytes, stream, p);
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
