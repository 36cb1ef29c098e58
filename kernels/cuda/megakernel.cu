// A step of decoding as one kernel (megakernel.h).
//
// Every block goes through all operators. It does the units of each that are its own, those with
// its number and every gridDim.y further ones, which lie in memory as the other blocks' beside
// them. Before an operator that waits, a block says that it has arrived, and asks for weights of
// products, which nobody writes, before it waits for the others.
#include "kernels/cuda/megakernel.h"
#include "kernels/cuda/megakernel_attention.cuh"
#include "kernels/cuda/megakernel_experts.cuh"
#include "kernels/cuda/megakernel_products.cuh"

namespace dsm::kernels::cuda {
namespace {

static_assert(sizeof(MegakernelOp) % 16 == 0);

struct Shared {
  MegakernelOp ops[2];  // in turn: this one, and the next on its way
  NormedRows normed;
  union {
    ProductsMemory products;
    AttentionMemory attention;
    ExpertsMemory experts;
  };
};
static_assert(sizeof(Shared) <= kMostSharedBytes);

// Lines of an operator's description are on their way while the one before is done.
__device__ __forceinline__ void ask_for_op(const MegakernelOp* ops, int number, Shared& shared) {
  constexpr int kWords = sizeof(MegakernelOp) / sizeof(uint4);
  static_assert(kWords <= kMegakernelThreads);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kWords) return;
  cp_async_16(reinterpret_cast<uint4*>(&shared.ops[number % 2]) + thread,
              reinterpret_cast<const uint4*>(ops + number) + thread);
}

[[gnu::noinline]] __device__ void norm_rows(const MegakernelOp& op,
                                            float (&warp_sum)[kNormThreads / 32]) {
  const auto p = params_of<RmsNormParams>(op);
  each_unit(op, [&](int number) { norm_row<kMegakernelThreads>(p, number, warp_sum); });
}

__device__ void count_move(const MegakernelOp& op) {
  const auto p = params_of<CountMove>(op);
  each_unit(op, [&](int) {
    if (threadIdx.x == 0) *p.seen = ++*p.count;
  });
}

// What is no product.
template <int kTerms>
__device__ void run_small(const MegakernelOp& op, Shared& shared) {
  switch (op.kind) {
    case MegakernelKind::kNorm:
      return norm_rows(op, shared.normed.warp_sum);
    case MegakernelKind::kKvWrite:
      return write_latents(op, shared.attention);
    case MegakernelKind::kKvWriteHeads:
      return write_heads(op);
    case MegakernelKind::kRopeQuery:
      return turn_pairs(op);
    case MegakernelKind::kAttentionSplits:
      return attend<kTerms>(op, shared.attention);
    case MegakernelKind::kAttentionMerge:
      return merge_rows(op, shared.attention);
    case MegakernelKind::kRoute:
      return route(op, shared.experts);
    case MegakernelKind::kCombine:
      return combine_rows(op);
    case MegakernelKind::kCountMove:
      return count_move(op);
    case MegakernelKind::kProducts:
      return;
  }
}

template <int kTerms>
__global__ void __launch_bounds__(kMegakernelThreads, 1)
    megakernel_kernel(const MegakernelOp* ops, const int count, std::uint32_t* barrier_word) {
  follow_previous_kernel();
  auto& shared = *dynamic_shared<Shared>();
  GridBarrier barrier(barrier_word);
  int made = 0;  // the norm whose rows are in shared memory
  ask_for_op(ops, 0, shared);
  for (int i = 0; i < count; ++i) {
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    const MegakernelOp& op = shared.ops[i % 2];
    if (i + 1 < count) ask_for_op(ops, i + 1, shared);
    if (op.waits) {
      barrier.arrive();
      for (const AskedWeights& asked : op.asks) ask_for_weights(asked);
    }
    if (op.kind == MegakernelKind::kProducts) {
      made = multiply_rows<kTerms>(op, barrier, shared.products, shared.normed, made);
    } else {
      if (op.waits) barrier.wait();
      run_small<kTerms>(op, shared);
    }
  }
}

template <int kTerms>
void launch_terms(const MegakernelLaunch& p, Stream stream) {
  launch_together(p.blocks, megakernel_kernel<kTerms>, kMegakernelThreads,
                  static_cast<int>(sizeof(Shared)), stream, p.ops, p.count, p.barrier);
}

}  // namespace

void megakernel(const MegakernelLaunch& p, Stream stream) {
  if (p.exact) {
    launch_terms<2>(p, stream);
  } else {
    launch_terms<1>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
