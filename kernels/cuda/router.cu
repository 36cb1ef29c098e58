// The router, one warp for a token.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/router.cuh"

namespace dsm::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kRouterLanes) router_kernel(const RouterParams p) {
  follow_previous_kernel();
  __shared__ RouterMemory<kMaxExperts> memory;
  route_token(p, blockIdx.x, memory, static_cast<int>(threadIdx.x));
}

}  // namespace

void router(const RouterParams& p, Stream stream) {
  launch_early(router_kernel, static_cast<unsigned>(p.tokens), kRouterLanes, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
