// Experts of the megakernel, but for their products: the router with its groups, and the sums of
// what experts give.
#pragma once

#include "kernels/cuda/combine.cuh"
#include "kernels/cuda/few_groups.cuh"
#include "kernels/cuda/megakernel_units.cuh"
#include "kernels/cuda/router.cuh"

namespace dsm::kernels::cuda {

static_assert(kMegakernelThreads == kFewThreads && kMegakernelThreads == kCombineThreads);

inline constexpr int kMegakernelWarps = kMegakernelThreads / 32;

struct ExpertsMemory {
  RouterMemory<kFewExperts> router[kMegakernelWarps];
  FewGroupsMemory groups;
};

// All of it by one block: what its warps choose is there for its threads without a barrier of all.
[[gnu::noinline]] static __device__ void route(const MegakernelOp& op, ExpertsMemory& memory) {
  const auto p = params_of<RouteTokens>(op);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  each_unit(op, [&](int) {
    for (int token = warp; token < p.router.tokens; token += kMegakernelWarps) {
      route_token(p.router, token, memory.router[warp], lane);
      __syncwarp();  // what is there has been read
    }
    __syncthreads();
    if (p.groups.tokens > 0) group_few(p.groups, p.tiles, memory.groups);
  });
}

[[gnu::noinline]] static __device__ void combine_rows(const MegakernelOp& op) {
  const auto p = params_of<CombineParams>(op);
  const int parts = parts_of_columns(p.n, kCombineThreads * kCombineColumns);
  each_unit(op,
            [&](int number) { combine_token<kCombineColumns>(p, number / parts, number % parts); });
}

}  // namespace dsm::kernels::cuda
