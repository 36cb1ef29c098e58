// The router's choice as groups, without the host: integers alone, so the same as the CPU's.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/experts.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;

__device__ int lanes_before(unsigned lanes, int lane) {
  return __popc(lanes & ((1U << lane) - 1U));
}

// Where the slot of a pair of a token and a choice stands.
__device__ std::int64_t place_of(const GroupExpertsParams& p, int pair) {
  return static_cast<std::int64_t>(pair / p.top_k) * (1 + p.top_k) + 1 + pair % p.top_k;
}

// Pairs that a lane, and a warp, asks for at a time.
constexpr int kEach = 8;
constexpr int kPairs = kEach * kWarp;

// The experts that pairs begin + 32 i + lane chose, counted from the first that has a group; below
// zero, or as many as there are and more: one without, or a pair from `end` on.
__device__ void load_chosen(const GroupExpertsParams& p, int begin, int end, int lane,
                            int (&expert)[kEach]) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int pair = begin + i * kWarp + lane;
    expert[i] = pair < end ? p.chosen[pair] - p.first_expert : -1;
  }
}

// Pairs that chose lower experts, and this one.
struct Counts {
  int lower;
  int own;
};

// A thread block for an expert, whose warps have a part of all pairs of a token and a choice each.
// A warp goes through its part twice, many pairs of a lane on their way at a time: once to count
// those of lower experts and its own, once to give its own their slots in order.
__global__ void __launch_bounds__(kWarp* kWarps) group_experts_kernel(const GroupExpertsParams p) {
  follow_previous_kernel();
  __shared__ Counts counts[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int expert = static_cast<int>(blockIdx.x);
  const int pairs = p.tokens * p.top_k;
  const int thread = expert * kWarp * kWarps + static_cast<int>(threadIdx.x);
  const int threads = p.experts * kWarp * kWarps;
  // Slots of the first group are shared out over all threads.
  for (int t = thread; t < p.tokens; t += threads) {
    p.token[t] = t;
    p.weight[t] = 1.0F;
    p.slot[static_cast<std::int64_t>(t) * (1 + p.top_k)] = t;
  }
  // Choices without a group are shared out in the same way.
  for (int i = thread; i < pairs; i += threads) {
    const int of = p.chosen[i] - p.first_expert;
    if (of < 0 || of >= p.experts) p.slot[place_of(p, i)] = -1;
  }
  const int each = (pairs + kWarps - 1) / kWarps;
  const int first = warp * each;
  const int end = first + each < pairs ? first + each : pairs;
  Counts mine = {};
  int chosen[kEach];
  for (int begin = first; begin < end; begin += kPairs) {
    load_chosen(p, begin, end, lane, chosen);
#pragma unroll
    for (const int of : chosen) {
      mine.lower += __popc(__ballot_sync(kAllLanes, of >= 0 && of < expert));
      mine.own += __popc(__ballot_sync(kAllLanes, of == expert));
    }
  }
  if (lane == 0) counts[warp] = mine;
  __syncthreads();
  Counts all = {};
  int before = 0;  // of its own, in parts of warps ahead
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += counts[w].own;
    all.lower += counts[w].lower;
    all.own += counts[w].own;
  }
  const int group = p.tokens + all.lower;
  if (threadIdx.x == 0) {
    if (expert == 0) p.groups[0] = {0, p.tokens};
    p.groups[1 + expert] = {group, group + all.own};
  }
  if (mine.own == 0) return;  // the whole warp does
  int slot = group + before;
  for (int begin = first; begin < end; begin += kPairs) {
    load_chosen(p, begin, end, lane, chosen);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const bool is_mine = chosen[i] == expert;
      const unsigned lanes = __ballot_sync(kAllLanes, is_mine);
      if (is_mine) {
        const int pair = begin + i * kWarp + lane;
        const int at = slot + lanes_before(lanes, lane);
        p.token[at] = pair / p.top_k;
        p.weight[at] = p.weights[pair];
        p.slot[place_of(p, pair)] = at;
      }
      slot += __popc(lanes);
    }
  }
}

__device__ Fp8Rows rows_from(const Fp8Rows& rows, std::int64_t row) {
  if (rows.values == nullptr) return rows;
  return {rows.values + row * rows.ld, rows.scales + row * (rows.ld / kScaleBlock), rows.ld};
}

// One warp, 32 experts at a time.
__global__ void __launch_bounds__(kWarp) expert_tasks_kernel(const ExpertTasks p) {
  follow_previous_kernel();
  const int lane = static_cast<int>(threadIdx.x);
  int next = 0;  // tile
  for (int begin = 0; begin < p.experts; begin += kWarp) {
    const int expert = begin + lane;
    int tiles = 0;
    if (expert < p.experts) {
      const Group group = p.groups[1 + expert];
      const PackedMatrix w =
          p.segmented != nullptr ? p.segmented[1 + expert].part[0] : p.w[1 + expert];
      const int offset = p.segmented != nullptr ? p.segmented[1 + expert].offset[0] : 0;
      const int rows = w.dtype == p.dtype ? group.end - group.begin : 0;
      p.tasks[expert] = {w,
                         p.x + group.begin * p.x_step + offset,
                         p.y + group.begin * p.y_step,
                         group.begin,
                         rows,
                         p.x_step == 0 ? p.x_fp8 : rows_from(p.x_fp8, group.begin)};
      tiles = (rows + p.tile_rows - 1) / p.tile_rows;
    }
    int before = tiles;  // of this expert and those of lower lanes
    for (int step = 1; step < kWarp; step *= 2) {
      const int lower = __shfl_up_sync(kAllLanes, before, step);
      if (lane >= step) before += lower;
    }
    const int all = __shfl_sync(kAllLanes, before, kWarp - 1);
    for (int i = 0; i < tiles; ++i) {
      p.tiles[next + before - tiles + i] = {expert, i * p.tile_rows};
    }
    next += all;
  }
  for (int i = next + lane; i < p.tile_count; i += kWarp) p.tiles[i] = {0, kNoRow};
}

}  // namespace

void group_experts(const GroupExpertsParams& p, Stream stream) {
  launch_early(group_experts_kernel, static_cast<unsigned>(p.experts), kWarp * kWarps, 0, stream,
               p);
}

void expert_tasks(const ExpertTasks& p, Stream stream) {
  launch_early(expert_tasks_kernel, 1, kWarp, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
