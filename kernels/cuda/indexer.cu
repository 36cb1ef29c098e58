// The indexer of sparse attention: keys into their cache, the scores of a past, and its best
// positions. All of it has the CPU's bits (kernels/cpu/indexer.h): a norm's sums are 16 chains and
// one tree, a score is one thread's chain over heads of chains over the key's elements.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kLanes = 16;  // chains of a norm's sum
constexpr int kTeams = kThreads / kKvBlock;
constexpr int kTeamHeads = kMaxIndexHeads / kTeams;
constexpr int kScoreBlocks = 8;  // KV blocks that a thread block takes with one query

// The sum over the first 16 lanes of a warp, on all of them.
__device__ float sum_of_lanes(float x) {
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_down_sync(kAllLanes, x, step);
  return __shfl_sync(kAllLanes, x, 0);
}

// A warp for each token.
__global__ void __launch_bounds__(32) index_write_kernel(const IndexWriteParams p) {
  __shared__ float row[kMaxIndexDim];
  const std::int64_t token = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  const int dim = p.keys.dim;
  const auto width = static_cast<float>(dim);
  const float* x = p.x + token * dim;
  const int first = lane < kLanes ? lane : dim;
  float sum = 0.0F;
  for (int i = first; i < dim; i += kLanes) sum += x[i];
  const float mean = sum_of_lanes(sum) / width;
  float squares = 0.0F;
  for (int i = first; i < dim; i += kLanes) squares = fmaf(x[i] - mean, x[i] - mean, squares);
  const float inverse = 1.0F / sqrtf(sum_of_lanes(squares) / width + p.eps);
  for (int i = lane; i < dim; i += 32) {
    row[i] = fmaf((x[i] - mean) * inverse, p.weight[i], p.bias[i]);
  }
  __syncwarp();
  const TokenPlace place = p.places[token];
  float* key = p.keys.keys + static_cast<std::int64_t>(place.block) * kKvBlock * dim +
               place.position % kKvBlock;
  const std::int64_t angles = static_cast<std::int64_t>(place.position) * p.rope.pairs;
  for (int i = lane; i < p.rope.pairs; i += 32) {
    const int a = p.rope.halves ? i : 2 * i;
    const int b = p.rope.halves ? i + p.rope.pairs : 2 * i + 1;
    const float c = p.rope.cos[angles + i];
    const float s = p.rope.sin[angles + i];
    key[a * kKvBlock] = row[a] * c - row[b] * s;
    key[b * kKvBlock] = row[a] * s + row[b] * c;
  }
  for (int i = 2 * p.rope.pairs + lane; i < dim; i += 32) key[i * kKvBlock] = row[i];
}

// Of a thread block: a query [dim][kMaxIndexHeads], products [kMaxIndexHeads][kKvBlock].
int score_bytes(int dim) {
  return (dim + kKvBlock) * kMaxIndexHeads * static_cast<int>(sizeof(float));
}

// dots[head][slot] of a block's keys. A team takes 16 heads, a thread a position.
__device__ void multiply_keys(const float* keys, int dim, const float* query, float* dots) {
  const int slot = static_cast<int>(threadIdx.x) % kKvBlock;
  const int first = static_cast<int>(threadIdx.x) / kKvBlock * kTeamHeads;
  float sum[kTeamHeads] = {};
  for (int d = 0; d < dim; ++d) {
    const float key = keys[static_cast<std::int64_t>(d) * kKvBlock + slot];
#pragma unroll
    for (int i = 0; i < kTeamHeads; i += 4) {
      const Four<float> four = load_four(query + d * kMaxIndexHeads + first + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i + j] = fmaf(four.v[j], key, sum[i + j]);
    }
  }
#pragma unroll
  for (int i = 0; i < kTeamHeads; ++i) dots[(first + i) * kKvBlock + slot] = sum[i];
}

// A thread block for each token of [first_token, ...) and each 8 blocks of its past.
__global__ void __launch_bounds__(kThreads)
    index_scores_kernel(const IndexSelectParams p, int first_token) {
  const int token = first_token + static_cast<int>(blockIdx.y);
  const int count = p.places[token].position + 1;
  const int begin = static_cast<int>(blockIdx.x) * kScoreBlocks;
  if (count <= p.top_k || begin * kKvBlock >= count) return;  // the whole thread block does
  const int dim = p.keys.dim;
  const int thread = static_cast<int>(threadIdx.x);
  auto* query = dynamic_shared<float>();
  float* dots = query + dim * kMaxIndexHeads;
  const float* from = p.query + static_cast<std::int64_t>(token) * p.heads * dim;
  for (int i = thread; i < dim * kMaxIndexHeads; i += kThreads) {
    const int head = i / dim;
    query[i % dim * kMaxIndexHeads + head] = head < p.heads ? from[i] : 0.0F;
  }
  const float* weights = p.weights + static_cast<std::int64_t>(token) * p.heads;
  float* score = p.scores + token % kIndexRows * p.ld_scores;
  for (int b = begin; b < begin + kScoreBlocks && b * kKvBlock < count; ++b) {
    __syncthreads();
    const std::int64_t block = p.block_tables[token][b];
    multiply_keys(p.keys.keys + block * kKvBlock * dim, dim, query, dots);
    __syncthreads();
    const int position = b * kKvBlock + thread;
    if (thread >= kKvBlock || position >= count) continue;
    float sum = 0.0F;
    for (int h = 0; h < p.heads; ++h) {
      const float dot = dots[h * kKvBlock + thread];
      sum = fmaf(weights[h] * p.scale, dot > 0.0F ? dot : 0.0F, sum);
    }
    score[position] = sum;
  }
}

// Rises with x; the two zeros are one.
__device__ std::uint32_t key_of(float x) {
  const std::uint32_t bits = as_bits(x + 0.0F);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffU : 0x80000000U);
}

// The key of the last of the top_k highest scores, and how many scores with it are among them.
struct LastKey {
  std::uint32_t key;
  int ties;
};

// Found byte by byte by the whole thread block; the same on all threads.
__device__ LastKey last_key(const float* score, int count, int top_k) {
  __shared__ int histogram[256];
  __shared__ LastKey found;
  static_assert(kThreads == 256, "a thread for each value of a byte");
  const int thread = static_cast<int>(threadIdx.x);
  LastKey last{0, top_k};
  std::uint32_t known = 0;  // bits of the key that are found
  for (int shift = 24; shift >= 0; shift -= 8) {
    histogram[thread] = 0;
    __syncthreads();
    for (int i = thread; i < count; i += kThreads) {
      const std::uint32_t key = key_of(score[i]);
      if ((key & known) == last.key) atomicAdd(&histogram[key >> shift & 255U], 1);
    }
    __syncthreads();
    int above = 0;
    for (int digit = thread + 1; digit < 256; ++digit) above += histogram[digit];
    if (above < last.ties && last.ties <= above + histogram[thread]) {
      found = {last.key | static_cast<std::uint32_t>(thread) << shift, last.ties - above};
    }
    __syncthreads();
    last = found;
    known |= 255U << shift;
  }
  return last;
}

// A thread block for each token: 256 positions at a time, in order, so that of equal scores the
// lower positions are taken.
__global__ void __launch_bounds__(kThreads)
    index_select_kernel(const IndexSelectParams p, int first_token) {
  __shared__ unsigned tied[kWarps];
  __shared__ unsigned taken[kWarps];
  const int token = first_token + static_cast<int>(blockIdx.x);
  const int count = p.places[token].position + 1;
  const bool all = count <= p.top_k;  // no score was computed
  const float* score = p.scores + token % kIndexRows * p.ld_scores;
  std::uint64_t* words = p.selection.words + token * p.selection.ld;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const unsigned before_lane = (1U << thread % 32) - 1;
  const LastKey last = all ? LastKey{} : last_key(score, count, p.top_k);
  int ties = last.ties;
  for (int begin = 0; begin < count; begin += kThreads) {
    const int position = begin + thread;
    const bool seen = position < count;
    const std::uint32_t key = !seen ? 0U : all ? 1U : key_of(score[position]);
    const unsigned equal = __ballot_sync(kAllLanes, seen && !all && key == last.key);
    if (thread % 32 == 0) tied[warp] = equal;
    __syncthreads();
    int before = __popc(equal & before_lane);
    int here = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += __popc(tied[w]);
      here += __popc(tied[w]);
    }
    const bool wins = key > last.key || (key == last.key && before < ties);
    const unsigned bits = __ballot_sync(kAllLanes, seen && wins);
    if (thread % 32 == 0) taken[warp] = bits;
    __syncthreads();
    if (thread < kWarps / 2 && begin + thread * kKvBlock < count) {
      words[begin / kKvBlock + thread] =
          std::uint64_t{taken[2 * thread + 1]} << 32 | taken[2 * thread];
    }
    ties -= here;
  }
}

}  // namespace

void index_write(const IndexWriteParams& p, Stream stream) {
  launch(index_write_kernel, static_cast<unsigned>(p.tokens), 32, 0, stream, p);
}

void index_select(const IndexSelectParams& p, int most_positions, Stream stream) {
  const int bytes = score_bytes(p.keys.dim);
  const int blocks = (most_positions + kKvBlock - 1) / kKvBlock;
  // As many tokens at a time as there is scratch memory for.
  for (int begin = 0; begin < p.tokens; begin += kIndexRows) {
    const int left = p.tokens - begin;
    const auto tokens = static_cast<unsigned>(left < kIndexRows ? left : kIndexRows);
    if (most_positions > p.top_k) {
      const dim3 grid(static_cast<unsigned>((blocks + kScoreBlocks - 1) / kScoreBlocks), tokens);
      launch(index_scores_kernel, grid, kThreads, bytes, stream, p, begin);
    }
    launch(index_select_kernel, tokens, kThreads, 0, stream, p, begin);
  }
}

}  // namespace dsm::kernels::cuda
