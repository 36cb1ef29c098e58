// The router's choice for a token, by a warp: the CPU's bits, so all ranks choose alike, and like a
// CPU that is given the same logits.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {

// What a warp has in shared memory, of up to kMost experts.
template <int kMost>
struct RouterMemory {
  float score[kMost];
  float choice[kMost];
  float group_score[kMost];
  bool group_taken[kMost];
  std::int32_t chosen[kMaxTopK];
};

inline constexpr int kRouterLanes = 32;
inline constexpr int kSoftmaxLanes = 16;  // of the CPU's vectors, over which it sums

__device__ inline float lowest() {
  return as_float(0xff800000U);
}

// The index of the highest value, the lowest index on a tie; the same on all lanes. As on the CPU
// index 0 where no value is a number above it.
__device__ inline int best_of(const float* value, int count, int lane) {
  float best = lowest();
  int at = count;
  for (int i = lane; i < count; i += kRouterLanes) {
    if (value[i] > best || (value[i] == best && i < at)) {
      best = value[i];
      at = i;
    }
  }
  for (int step = kRouterLanes / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, step);
    const int other_at = __shfl_xor_sync(kAllLanes, at, step);
    if (other > best || (other == best && other_at < at)) {
      best = other;
      at = other_at;
    }
  }
  return at < count ? at : 0;
}

// score = softmax(logits), summed over 16 lanes of the CPU and in its tree.
__device__ inline void softmax(const float* logits, int count, float* score, int lane) {
  float top = lowest();
  for (int e = lane; e < count; e += kRouterLanes) top = logits[e] > top ? logits[e] : top;
  for (int step = kRouterLanes / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, top, step);
    top = other > top ? other : top;
  }
  for (int e = lane; e < count; e += kRouterLanes) score[e] = exp_of(logits[e] - top);
  __syncwarp();
  float sum = 0.0F;
  if (lane < kSoftmaxLanes) {
    for (int e = lane; e < count; e += kSoftmaxLanes) sum += score[e];
  }
  for (int step = kSoftmaxLanes / 2; step > 0; step /= 2) {
    sum += __shfl_down_sync(kAllLanes, sum, step);
  }
  const float total = __shfl_sync(kAllLanes, sum, 0);
  __syncwarp();
  for (int e = lane; e < count; e += kRouterLanes) score[e] = score[e] / total;
}

__device__ inline void score_groups(const RouterParams& p, const float* choice, float* group_score,
                                    int lane) {
  const int size = p.experts / p.groups;
  const bool biased = p.rule == RouterRule::kSigmoidBias;
  for (int g = lane; g < p.groups; g += kRouterLanes) {
    float first = lowest();
    float second = lowest();
    for (int e = g * size; e < (g + 1) * size; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else if (choice[e] > second) {
        second = choice[e];
      }
    }
    group_score[g] = biased ? first + second : first;
  }
}

// The whole warp calls it.
template <int kMost>
__device__ void route_token(const RouterParams& p, std::int64_t token, RouterMemory<kMost>& memory,
                            int lane) {
  auto& [score, choice, group_score, group_taken, chosen] = memory;
  const float* logits = p.logits + token * p.ld;
  const bool biased = p.rule == RouterRule::kSigmoidBias;
  if (biased) {
    for (int e = lane; e < p.experts; e += kRouterLanes) score[e] = sigmoid_of(logits[e]);
  } else {
    softmax(logits, p.experts, score, lane);
  }
  for (int e = lane; e < p.experts; e += kRouterLanes) {
    choice[e] = biased ? score[e] + p.bias[e] : score[e];
  }
  __syncwarp();
  if (p.groups > 1) score_groups(p, choice, group_score, lane);
  for (int g = lane; g < p.groups; g += kRouterLanes) group_taken[g] = p.groups == 1;
  __syncwarp();
  for (int i = 0; i < p.topk_groups && p.groups > 1; ++i) {
    const int g = best_of(group_score, p.groups, lane);
    __syncwarp();
    if (lane == 0) {
      group_taken[g] = true;
      group_score[g] = lowest();
    }
    __syncwarp();
  }
  const int size = p.experts / p.groups;
  for (int e = lane; e < p.experts; e += kRouterLanes) {
    if (!group_taken[e / size]) choice[e] = lowest();
  }
  __syncwarp();
  for (int i = 0; i < p.top_k; ++i) {
    const int e = best_of(choice, p.experts, lane);
    __syncwarp();
    if (lane == 0) {
      choice[e] = lowest();
      int at = i;  // into its place by id
      for (; at > 0 && chosen[at - 1] > e; --at) chosen[at] = chosen[at - 1];
      chosen[at] = e;
    }
    __syncwarp();
  }
  float sum = 0.0F;
  for (int i = 0; i < p.top_k; ++i) sum += score[chosen[i]];
  for (int i = lane; i < p.top_k; i += kRouterLanes) {
    const float s = score[chosen[i]];
    p.chosen[token * p.top_k + i] = chosen[i];
    p.weights[token * p.top_k + i] = (p.normalise ? s / (sum + 1e-20F) : s) * p.scale;
  }
}

}  // namespace dsm::kernels::cuda
