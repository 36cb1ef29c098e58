// Attention of a prompt's rows over a packed past (attention_wide.h): two warpgroups of a thread
// block take 64 rows each and go through the tiles up to their last position.
//
// Tiles come by bulk copies into two rings in shared memory, one of keys and one of values. The
// last warp to be done with a place of a ring asks for what comes there next, so no warp waits for
// another, and while one warpgroup makes exponentials, the tensor cores work for the other. Within
// a warpgroup the products of the next tile's scores and of this one's values are started together:
// the next exponentials are made while the latter go on.
//
// Exponentials are powers of two of differences to a maximum that is left alone while no score of
// the warp exceeds it by more than 2^kSlack: a sum in FP32 has room for that, and sums so far are
// rarely multiplied.
#include <iterator>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_wide.h"
#include "kernels/cuda/fp8_rows.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kGroupRows = 64;  // of a warpgroup
constexpr int kWarps = kPromptRows / kGroupRows * 4;
constexpr int kThreads = kWarps * 32;
constexpr float kSlack = 8.0F;
constexpr float kMinusInfinity = -__builtin_huge_valf();
constexpr int kMostRing = 4;

template <int kTile>
struct Shape {
  static constexpr WideTile kSize = kWideTiles[kTile];
  static constexpr int kKeySteps = kSize.keys / kStepInputs;
  static constexpr int kPositionSteps = kSize.positions / kStepInputs;
  static constexpr int kKeyBytes = key_bytes_of(kSize);
  static constexpr int kTileBytes = bytes_of(kSize);
  static constexpr int kValueBytes = kTileBytes - kKeyBytes;
  // With what aligns tiles, and of each place of a ring a barrier and a number.
  static constexpr int kFits = (kMostHopperBytes - 1024) / (kTileBytes + 2 * (8 + 4));
  static constexpr int kRing = kFits < kMostRing ? kFits : kMostRing;
  static constexpr int kSharedBytes = kRing * (kTileBytes + 2 * (8 + 4)) + 1024;
  static_assert(kRing >= 2);

  using Scores = float[kSize.positions / 2];
  using Sums = float[kSize.values / 2];
  using Query = std::uint32_t[kKeySteps][4];
  using Exponentials = std::uint32_t[kPositionSteps][4];
};

// The keys, or the values, of tiles on their way through shared memory.
template <int kRing, int kBytes, int kTileBytes>
struct Ring {
  unsigned char* places;
  std::uint64_t* barriers;
  unsigned* done;             // warps, of each place
  const unsigned char* from;  // of tile 0
  int tiles;

  // One thread begins it and asks for the first tiles.
  __device__ __forceinline__ void begin() const {
    for (int i = 0; i < kRing; ++i) {
      copies_begin(barriers + i, 1);
      done[i] = 0;
    }
  }
  __device__ __forceinline__ void ask(int i) const {
    if (i >= tiles) return;
    copies_expect(barriers + i % kRing, kBytes);
    copy_bytes(places + i % kRing * kBytes, from + static_cast<std::int64_t>(i) * kTileBytes,
               kBytes, barriers + i % kRing);
  }
  __device__ __forceinline__ const unsigned char* wait(int i) const {
    copies_wait(barriers + i % kRing, i / kRing);
    return places + i % kRing * kBytes;
  }
  // A warp has read tile i, or waited for it.
  __device__ __forceinline__ void release(int i) const {
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    __threadfence_block();
    if (atomicAdd(done + i % kRing, 1U) % kWarps != kWarps - 1) return;
    __threadfence_block();
    ask(i + kRing);
  }
};

template <class S>
struct Rings {
  Ring<S::kRing, S::kKeyBytes, S::kTileBytes> keys;
  Ring<S::kRing, S::kValueBytes, S::kTileBytes> values;

  static __device__ __forceinline__ Rings make(const unsigned char* from, int tiles) {
    auto* at = dynamic_shared<unsigned char>();
    at += (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024;
    auto* barriers = reinterpret_cast<std::uint64_t*>(at + S::kRing * S::kTileBytes);
    auto* done = reinterpret_cast<unsigned*>(barriers + 2 * S::kRing);
    return {{at, barriers, done, from, tiles},
            {at + S::kRing * S::kKeyBytes, barriers + S::kRing, done + S::kRing,
             from + S::kKeyBytes, tiles}};
  }
};

// A lane's two rows, g and g + 8 of its warp's 16.
struct Rows {
  int position[2];  // the last that each attends to
  int least;        // what all rows of the warp see
  float best[2] = {kNothing, kNothing};
  float total[2] = {};  // of the lane's positions alone

  // Scores of what rows do not attend to become minus infinity.
  template <int kScores>
  __device__ __forceinline__ void mask(float (&score)[kScores], int begin) const {
    if (begin + 2 * kScores - 1 <= least) return;
    const int first = begin + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      if (i / 4 * 8 + i % 2 > position[i / 2 % 2] - first) score[i] = kMinusInfinity;
    }
  }

  // Scores become exponentials in their place. Whether what there is so far has to be multiplied by
  // `keep`.
  template <int kScores>
  __device__ __forceinline__ bool exponentials(float (&score)[kScores], float scale,
                                               float (&keep)[2]) {
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float even = kMinusInfinity;
      float odd = kMinusInfinity;
#pragma unroll
      for (int i = 2 * half; i < kScores; i += 4) {
        even = fmaxf(even, score[i]);
        odd = fmaxf(odd, score[i + 1]);
      }
      top[half] = fmaxf(even, odd);
      for (int step = 1; step <= 2; step *= 2) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(kAllLanes, top[half], step));
      }
      top[half] = maximum_of(top[half], scale);
    }
    const bool grows =
        __any_sync(kAllLanes, top[0] > best[0] + kSlack || top[1] > best[1] + kSlack) != 0;
    if (grows) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float next = fmaxf(best[half], top[half]);
        keep[half] = power_of_two(best[half] - next);
        total[half] *= keep[half];
        best[half] = next;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float even = 0.0F;
      float odd = 0.0F;
#pragma unroll
      for (int i = 2 * half; i < kScores; i += 4) {
        score[i] = exponential_of<1>(score[i], scale, best[half]);
        score[i + 1] = exponential_of<1>(score[i + 1], scale, best[half]);
        even += score[i];
        odd += score[i + 1];
      }
      total[half] += even + odd;
    }
    return grows;
  }

  __device__ __forceinline__ void add_up() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      for (int step = 1; step <= 2; step *= 2) {
        total[half] += __shfl_xor_sync(kAllLanes, total[half], step);
      }
    }
  }
};

// D's registers of a product are A's of the next.
template <int kSteps, int kScores>
__device__ __forceinline__ void make_operands(const float (&score)[kScores],
                                              std::uint32_t (&to)[kSteps][4]) {
  static_assert(kSteps * 8 == kScores);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[step][i] = bf16_pair(score[step * 8 + i * 2], score[step * 8 + i * 2 + 1]);
    }
    wgmma_ready(to[step]);
  }
}

// Starts the products of a warpgroup's scores of tile i.
template <class S>
__device__ __forceinline__ void start_scores(const Rings<S>& rings, int i,
                                             const typename S::Query& query,
                                             typename S::Scores& score) {
  const unsigned char* keys = rings.keys.wait(i);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < S::kKeySteps; ++step) {
    const SharedRows rows = shared_rows(keys + step / 4 * (S::kSize.positions * kSharedRowBytes));
    if (step == 0) {
      wgmma_bf16<false>(score, query[step], rows, step % 4);
    } else {
      wgmma_bf16(score, query[step], rows, step % 4);
    }
  }
  wgmma_commit();
}

template <class S>
__device__ __forceinline__ void start_values(const Rings<S>& rings, int i,
                                             const typename S::Exponentials& exponentials,
                                             typename S::Sums& sums) {
  const unsigned char* values = rings.values.wait(i);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < S::kPositionSteps; ++step) {
    wgmma_bf16(sums, exponentials[step],
               shared_rows(values + step / 4 * (S::kSize.values * kSharedRowBytes)), step % 4);
  }
  wgmma_commit();
}

// Through the first `tiles`, of which there is one.
template <class S>
__device__ __forceinline__ void attend(const Rings<S>& rings, int tiles, float scale,
                                       const typename S::Query& query, Rows& rows,
                                       typename S::Sums& sums) {
  constexpr int kPositions = S::kSize.positions;
  typename S::Exponentials operands;
  {
    typename S::Scores score;
    float keep[2];
    start_scores<S>(rings, 0, query, score);
    wgmma_wait<0>();
    wgmma_done(score);
    rings.keys.release(0);
    rows.mask(score, 0);
    rows.exponentials(score, scale, keep);  // there is nothing so far
    make_operands(score, operands);
  }
#pragma unroll 1
  for (int i = 0; i + 1 < tiles; ++i) {
    typename S::Scores score;
    float keep[2] = {1.0F, 1.0F};
    start_scores<S>(rings, i + 1, query, score);
    start_values<S>(rings, i, operands, sums);
    wgmma_wait<1>();
    wgmma_done(score);
    rings.keys.release(i + 1);
    rows.mask(score, (i + 1) * kPositions);
    const bool grows = rows.exponentials(score, scale, keep);
    wgmma_wait<0>();
    wgmma_done(sums);
    rings.values.release(i);
    if (grows) {
#pragma unroll
      for (int j = 0; j < S::kSize.values / 2; ++j) sums[j] *= keep[j / 2 % 2];
    }
    wgmma_ready(sums);
    make_operands(score, operands);
  }
  start_values<S>(rings, tiles - 1, operands, sums);
  wgmma_wait<0>();
  wgmma_done(sums);
  rings.values.release(tiles - 1);
}

template <class S>
__device__ __forceinline__ void write(const AttentionParams& p, const AttentionItem& item,
                                      int first_row, const Rows& rows,
                                      const typename S::Sums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row + lane / 4 + half * 8;
    if (r >= item.row_end - item.row_begin) continue;
    float* out = p.out + row_of_item(p, item, r) * p.kv.value_dim;
    const float share = 1.0F / rows.total[half];
#pragma unroll
    for (int j = 0; j < S::kSize.values / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      if (column >= p.kv.value_dim) break;
      *reinterpret_cast<float2*>(out + column) =
          make_float2(sums[j * 4 + half * 2] * share, sums[j * 4 + half * 2 + 1] * share);
    }
  }
}

// The same as rows of the next product. A lane's pairs of columns, 8 apart, are those of two chunks
// of a stage, so it writes these as they are.
template <class S>
__device__ __forceinline__ void write_operands(const WideAttention& launch,
                                               const AttentionItem& item, int first_row,
                                               const Rows& rows, const typename S::Sums& sums) {
  constexpr int kPieces = 4;
  const AttentionParams& p = launch.params;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row + lane / 4 + half * 8;
    if (r >= item.row_end - item.row_begin) continue;
    const int token = (item.row_begin + r) / p.heads;
    const int head = item.kv_head * p.heads + (item.row_begin + r) % p.heads;
    const int first_stage = head * (p.kv.value_dim / kWideInputs);
    const float share = 1.0F / rows.total[half];
#pragma unroll
    for (int stage = 0; stage < S::kSize.values / kWideInputs; ++stage) {
      if (stage * kWideInputs >= p.kv.value_dim) break;
      auto* to = reinterpret_cast<uint4*>(static_cast<unsigned char*>(launch.to.data) +
                                          unit_stage(token, first_stage + stage, launch.to.stages) *
                                              kUnitStageBytes);
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        std::uint32_t words[kPieces];
#pragma unroll
        for (int piece = 0; piece < kPieces; ++piece) {
          const int at = (stage * 8 + piece * 2 + upper) * 4 + half * 2;
          words[piece] = bf16_pair(sums[at] * share, sums[at + 1] * share);
        }
        to[chunk_at(token % kUnitRows, upper * 4 + lane % 4)] =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
}

// The same rounded to FP8: a row of a head is the 128 inputs of a scale. The four lanes that have
// it find its largest magnitude together, and trade with their neighbours so that each has four
// inputs side by side: again those of two chunks of the stage.
template <class S>
__device__ __forceinline__ void write_fp8_operands(const WideAttention& launch,
                                                   const AttentionItem& item, int first_row,
                                                   const Rows& rows, const typename S::Sums& sums) {
  constexpr int kBlocks = S::kSize.values / 8;  // of eight columns
  const AttentionParams& p = launch.params;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool odd = lane % 2 != 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row + lane / 4 + half * 8;
    const float share = 1.0F / rows.total[half];
    float largest = 0.0F;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      largest = fmaxf(largest, fabsf(sums[j * 4 + half * 2] * share));
      largest = fmaxf(largest, fabsf(sums[j * 4 + half * 2 + 1] * share));
    }
    for (int step = 1; step <= 2; step *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
    }
    const float scale = activation_scale_of(largest, launch.to_fp8.power_of_two);
    const auto pair = [&](int j) {
      const int at = j * 4 + half * 2;
      return e4m3_pair(sums[at] * share / scale, sums[at + 1] * share / scale);
    };
    std::uint32_t words[2][kBlocks / 4];
#pragma unroll
    for (int t = 0; t < kBlocks / 2; ++t) {
      const std::uint32_t even_pair = pair(2 * t);
      const std::uint32_t odd_pair = pair(2 * t + 1);
      const std::uint32_t other = __shfl_xor_sync(kAllLanes, odd ? even_pair : odd_pair, 1);
      words[t % 2][t / 2] = odd ? other | odd_pair << 16 : even_pair | other << 16;
    }
    if (r >= item.row_end - item.row_begin) continue;
    const int token = (item.row_begin + r) / p.heads;
    const int head = item.kv_head * p.heads + (item.row_begin + r) % p.heads;
    unsigned char* stage = fp8_stage_of(launch.to_fp8, token, head);
    const int row = token % kFp8HeldRows;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      // Of the chunk's words this is the first: the lane's first four columns.
      const int word = fp8_word_at(row, t * 4 + lane % 2 * 2 + lane % 4 / 2);
      *reinterpret_cast<uint4*>(stage + word * 4) =
          make_uint4(words[t][0], words[t][1], words[t][2], words[t][3]);
    }
    if (lane % 4 == 0) put_fp8_scale(stage, row, scale);
  }
}

template <int kTile>
__global__ void __launch_bounds__(kThreads, 1) wide_attention_kernel(const WideAttention launch) {
  follow_previous_kernel();
  using S = Shape<kTile>;
  const AttentionParams& p = launch.params;
  const WideItem wide = launch.items[blockIdx.x];
  const AttentionItem& item = wide.rows;
  const int all_rows = item.row_end - item.row_begin;
  const int last = position_of(p, item, all_rows - 1);
  const int tiles = last / S::kSize.positions + 1;
  const auto rings = Rings<S>::make(static_cast<const unsigned char*>(launch.tiles) +
                                        static_cast<std::int64_t>(wide.first_tile) * S::kTileBytes,
                                    tiles);
  if (threadIdx.x == 0) {
    rings.keys.begin();
    rings.values.begin();
    for (int i = 0; i < S::kRing; ++i) {
      rings.keys.ask(i);
      rings.values.ask(i);
    }
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = warp * kTileRows;
  typename S::Query query;
#pragma unroll
  for (int step = 0; step < S::kKeySteps; ++step) {
    const auto operand = load_queries<1>(p, item, first_row, step, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) query[step][i] = operand.term[0].v[i];
    wgmma_ready(query[step]);
  }
  Rows rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row + lane / 4 + half * 8;
    rows.position[half] = r < all_rows ? position_of(p, item, r) : last;  // nobody's is not written
  }
  // Rows rise in position.
  rows.least = __shfl_sync(kAllLanes, rows.position[0], 0);
  // Of the warpgroup, which goes as far as its last row sees.
  const int group = warp / 4 * kGroupRows;
  const int group_end = group + kGroupRows < all_rows ? group + kGroupRows : all_rows;
  const int mine =
      group < all_rows ? position_of(p, item, group_end - 1) / S::kSize.positions + 1 : 0;
  typename S::Sums sums = {};
  __syncthreads();  // the rings have begun
  if (mine > 0) attend<S>(rings, mine, score_scale<1>(p), query, rows, sums);
  // The other one goes on; a place is not asked for again before all have seen what was there.
  for (int i = mine; i < tiles; ++i) {
    rings.keys.wait(i);
    rings.keys.release(i);
    rings.values.wait(i);
    rings.values.release(i);
  }
  rows.add_up();
  if constexpr (S::kSize.values == kScaleBlock) {
    if (launch.to_fp8.data != nullptr) {
      return write_fp8_operands<S>(launch, item, first_row, rows, sums);
    }
  }
  if (launch.to.data != nullptr) {
    write_operands<S>(launch, item, first_row, rows, sums);
  } else {
    write<S>(p, item, first_row, rows, sums);
  }
}

template <int kTile>
void launch_tile(const WideAttention& launch, Stream stream) {
  launch_early(wide_attention_kernel<kTile>, static_cast<unsigned>(launch.item_count), kThreads,
               Shape<kTile>::kSharedBytes, stream, launch);
}

}  // namespace

void wide_attention(const WideAttention& launch, Stream stream) {
  static_assert(std::size(kWideTiles) == 4);
  if (launch.tile == kWideTiles[0]) return launch_tile<0>(launch, stream);
  if (launch.tile == kWideTiles[1]) return launch_tile<1>(launch, stream);
  if (launch.tile == kWideTiles[2]) return launch_tile<2>(launch, stream);
  launch_tile<3>(launch, stream);
}

}  // namespace dsm::kernels::cuda
