// Attention over the paged KV cache in FP32, for latent attention (one head of keys, whose values
// are its latents) and grouped-query attention alike. Caches in BF16 and FP8 have splits of their
// own (attention_tensor.cu).
//
// First a thread block for each item (up to 32 rows of one sequence and KV head) and each split of
// 256 positions: scores into shared memory, each row's maximum and exponentials, and the row's part
// of the output. Then the splits of a row are merged in order. Which positions a split holds
// depends on nothing but their numbers, and positions that a row does not attend to count as exact
// zeros: a row's bits depend neither on the rows beside it nor on how its prompt was cut. Blocks to
// which no row of the item attends are not read.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = kAttentionThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kTeams = kThreads / kKvBlock;  // of as many threads as a block has positions

// kRows: of an item at most, of which kGroup are computed together.
template <int kRows, int kGroup>
struct Split {
  // Floats from one position's scores to the next: four more than rows, to keep lanes on different
  // banks.
  static constexpr int kStride = kRows + 4;
  static constexpr int kGroups = kRows / kGroup;

  static int shared_bytes(int key_dim) {
    return (key_dim * kRows + kSplitPositions * kStride) * static_cast<int>(sizeof(float));
  }

  // Sums of kGroup rows.
  __device__ static void multiply(const float* from, float by, float (&sum)[kGroup]) {
#pragma unroll
    for (int i = 0; i < kGroup; i += 4) {
      const Four<float> four = load_four(from + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i + j] = fmaf(four.v[j], by, sum[i + j]);
    }
  }

  // score[position][row] of those of the split's blocks that are not kUnread. A team takes a block
  // at a time, a thread a position. query: [key_dim][kRows].
  __device__ static void scores(const AttentionParams& p, const std::int64_t* block,
                                const float* query, float* score) {
    const int team = static_cast<int>(threadIdx.x) / kKvBlock;
    const int slot = static_cast<int>(threadIdx.x) % kKvBlock;
    for (int unit = team; unit < kSplitBlocks * kGroups; unit += kTeams) {
      const int b = unit % kSplitBlocks;
      const int group = unit / kSplitBlocks;
      if (block[b] == kUnread) continue;
      const float* key =
          static_cast<const float*>(p.kv.keys) + block[b] * kKvBlock * p.kv.key_dim + slot;
      float sum[kGroup] = {};
      for (int d = 0; d < p.kv.key_dim; ++d) {
        multiply(query + d * kRows + group * kGroup, key[static_cast<std::int64_t>(d) * kKvBlock],
                 sum);
      }
      float* to = score + (b * kKvBlock + slot) * kStride + group * kGroup;
#pragma unroll
      for (int i = 0; i < kGroup; i += 4) {
        *reinterpret_cast<Four<float>*>(to + i) = {
            {sum[i] * p.scale, sum[i + 1] * p.scale, sum[i + 2] * p.scale, sum[i + 3] * p.scale}};
      }
    }
  }
};

template <int kRows, int kGroup>
__global__ void __launch_bounds__(kThreads) split_kernel(const AttentionLaunch launch) {
  using Part = Split<kRows, kGroup>;
  __shared__ SplitBlocks<kRows> blocks;
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + static_cast<int>(blockIdx.x)];
  const int rows = item.row_end - item.row_begin;
  const int split = static_cast<int>(blockIdx.y);
  // Rows rise in position: the last one sees most.
  const int left = position_of(p, item, rows - 1) + 1 - split * kSplitPositions;
  if (left <= 0) return;  // the whole thread block does
  const int used = left < kSplitPositions ? left : kSplitPositions;
  auto* query = dynamic_shared<float>();
  float* score = query + p.kv.key_dim * kRows;
  const int thread = static_cast<int>(threadIdx.x);

  blocks.find(p, item, split);
  for (int r = 0; r < kRows; ++r) {
    const float* from = r < rows ? p.query + row_of_item(p, item, r) * p.kv.key_dim : nullptr;
    for (int d = thread; d < p.kv.key_dim; d += kThreads) {
      query[d * kRows + r] = from != nullptr ? from[d] : 0.0F;
    }
  }
  __syncthreads();
  Part::scores(p, blocks.block, query, score);
  __syncthreads();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * launch.item_rows;
  for (int r = thread / 32; r < rows; r += kWarps) {
    const std::int64_t at = (first + r) * launch.splits + split;
    exponentials(
        blocks.mask[r], [&](int i) -> float& { return score[i * Part::kStride + r]; },
        launch.best + at, launch.total + at);
  }
  __syncthreads();
  for (int unit = thread; unit < p.kv.value_dim * Part::kGroups; unit += kThreads) {
    const int column = unit % p.kv.value_dim;
    const int group = unit / p.kv.value_dim;
    if (group * kGroup >= rows) continue;
    float sum[kGroup] = {};
    for (int begin = 0; begin < used; begin += kKvBlock) {
      const std::int64_t block = blocks.block[begin / kKvBlock];
      if (block == kUnread) continue;
      const float* value =
          static_cast<const float*>(p.kv.values) + block * kKvBlock * p.kv.value_dim + column;
      for (int at = begin; at < used && at < begin + kKvBlock; ++at) {
        Part::multiply(score + at * Part::kStride + group * kGroup, *value, sum);
        value += p.kv.value_dim;
      }
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int r = group * kGroup + i;
      if (r >= rows) continue;
      launch.partial[((first + r) * launch.splits + split) * p.kv.value_dim + column] = sum[i];
    }
  }
}

__global__ void __launch_bounds__(kThreads) merge_kernel(const AttentionLaunch launch) {
  const AttentionParams& p = launch.params;
  const AttentionItem item = p.items[launch.first_item + static_cast<int>(blockIdx.x)];
  const int r = static_cast<int>(blockIdx.y);
  if (r >= item.row_end - item.row_begin) return;
  const int splits = position_of(p, item, r) / kSplitPositions + 1;
  const std::int64_t first =
      (static_cast<std::int64_t>(blockIdx.x) * launch.item_rows + r) * launch.splits;
  float* out = p.out + row_of_item(p, item, r) * p.kv.value_dim;
  for (int column = static_cast<int>(threadIdx.x); column < p.kv.value_dim; column += kThreads) {
    float best = kNothing;
    float total = 0.0F;
    float sum = 0.0F;
    for (int split = 0; split < splits; ++split) {
      if (launch.total[first + split] == 0.0F) continue;  // the row attends to nothing in it
      const float next = launch.best[first + split];
      const float top = fmaxf(best, next);
      const float keep = exp_of(best - top);
      const float take = exp_of(next - top);
      total = fmaf(launch.total[first + split], take, total * keep);
      sum = fmaf(launch.partial[(first + split) * p.kv.value_dim + column], take, sum * keep);
      best = top;
    }
    out[column] = sum / total;
  }
}

template <int kRows, int kGroup>
void launch_splits(const AttentionLaunch& p, Stream stream) {
  const int bytes = Split<kRows, kGroup>::shared_bytes(p.params.kv.key_dim);
  const dim3 grid(static_cast<unsigned>(p.items), static_cast<unsigned>(p.splits));
  launch(split_kernel<kRows, kGroup>, grid, kThreads, bytes, stream, p);
}

}  // namespace

void attention(const AttentionLaunch& p, Stream stream) {
  if (p.params.kv.dtype != DType::kF32) {
    tensor_splits(p, stream);
  } else if (p.item_rows == 8) {
    launch_splits<8, 8>(p, stream);
  } else if (p.item_rows == 16) {
    launch_splits<16, 16>(p, stream);
  } else {
    launch_splits<32, 16>(p, stream);
  }
  const dim3 grid(static_cast<unsigned>(p.items), static_cast<unsigned>(p.item_rows));
  launch(merge_kernel, grid, kThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
