// The choices of few tokens as groups of slots, by a thread block: integers alone, so the same as
// group_experts().
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/experts.h"

namespace dsm::kernels::cuda {

// A thread stands for an expert, and for a pair of a token and a choice.
inline constexpr int kFewThreads = 256;
static_assert(kFewExperts == kFewThreads && kFewPairs == kFewThreads);

struct FewGroupsMemory {
  int expert[kFewPairs];  // of each pair, counted from the first with a group; -1: one without
  int tiles[kFewThreads / 32];
};

// All threads call it. What the router has written is there for the block. Tiles of the groups that
// have any slot, as many as `to` says.
__device__ inline void group_few(const GroupExpertsParams& p, const FewTiles& to,
                                 FewGroupsMemory& memory) {
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int each = 1 + p.top_k;
  const int pairs = p.tokens * p.top_k;
  const int chosen = thread < pairs ? p.chosen[thread] - p.first_expert : -1;
  const int mine = chosen < p.experts ? chosen : -1;
  memory.expert[thread] = mine;
  __syncthreads();
  int lower = 0;   // pairs of lower experts than the pair's
  int before = 0;  // of its own, in front of it
  int begin = 0;   // pairs of lower experts than this thread's
  int own = 0;
  for (int q = 0; q < pairs; ++q) {
    const int of = memory.expert[q];
    if (of < 0) continue;
    if (of < mine) ++lower;
    if (of == mine && q < thread) ++before;
    if (of < thread) ++begin;
    if (of == thread) ++own;
  }
  if (thread < pairs) {
    int at = -1;
    if (mine >= 0) {
      at = p.tokens + lower + before;
      p.token[at] = thread / p.top_k;
      p.weight[at] = p.weights[thread];
    }
    p.slot[thread / p.top_k * each + 1 + thread % p.top_k] = at;
  }
  if (thread < p.tokens) {
    p.token[thread] = thread;
    p.weight[thread] = 1.0F;
    p.slot[thread * each] = thread;
  }
  if (thread == 0) p.groups[0] = {0, p.tokens};
  if (thread < p.experts) {
    p.groups[1 + thread] = {p.tokens + begin, p.tokens + begin + own};
  }
  const unsigned with_slots = __ballot_sync(kAllLanes, own > 0);
  if (thread % 32 == 0) memory.tiles[warp] = __popc(with_slots);
  __syncthreads();
  int tile = __popc(with_slots & ((1U << (thread % 32)) - 1U));
  int all = 0;
  for (int w = 0; w < kFewThreads / 32; ++w) {
    if (w < warp) tile += memory.tiles[w];
    all += memory.tiles[w];
  }
  if (own > 0) to.tiles[tile] = {thread, p.tokens + begin, own};
  if (thread == 0) *to.count = all;
}

}  // namespace dsm::kernels::cuda
