// Attention of the megakernel: what queries, keys, values and latents go through between a layer's
// products. Functions of their own: inlined into one kernel, what they have in registers would not
// all fit.
#pragma once

#include "kernels/cuda/attention_merge.cuh"
#include "kernels/cuda/attention_splits.cuh"
#include "kernels/cuda/kv_write.cuh"
#include "kernels/cuda/megakernel_units.cuh"
#include "kernels/cuda/rope.cuh"

namespace dsm::kernels::cuda {

static_assert(kMegakernelThreads == kAttentionThreads && kMegakernelThreads == kKvWriteThreads);

inline constexpr int kSplitBytes = SplitShared<1, 2>::bytes(kMegakernelKeyDim);

struct AttentionMemory {
  union {
    MergedPart<kMegakernelThreads> merged;
    uint4 splits[kSplitBytes / sizeof(uint4)];
    float warp_sum[kKvWriteThreads / 32];
  };
};

// Its parameters stay in shared memory: registers are wanted for keys and values on their way.
template <DType kType, int kTerms>
[[gnu::noinline]] static __device__ void attend_to_splits(const MegakernelOp& op, uint4* memory) {
  const auto& launch = *reinterpret_cast<const AttentionLaunch*>(op.params);
  each_unit(op, [&](int number) {
    attend_to_split<kType, 1, kTerms>(launch, number / launch.splits, number % launch.splits,
                                      memory);
  });
}
template <int kTerms>
__device__ void attend(const MegakernelOp& op, AttentionMemory& memory) {
  switch (params_of<AttentionLaunch>(op).params.kv.dtype) {
    case DType::kF32:
      return attend_to_splits<DType::kF32, kTerms>(op, memory.splits);
    case DType::kBF16:
      return attend_to_splits<DType::kBF16, kTerms>(op, memory.splits);
    default:
      return attend_to_splits<DType::kF8E4M3, kTerms>(op, memory.splits);
  }
}

// A unit is a part of a row's columns, so that few rows of wide values have blocks enough.
[[gnu::noinline]] static __device__ void merge_rows(const MegakernelOp& op,
                                                    AttentionMemory& memory) {
  const auto launch = params_of<AttentionLaunch>(op);
  const int parts = parts_of_columns(launch.params.kv.value_dim, kMegakernelThreads);
  each_unit(op, [&](int number) {
    const int row = number / parts;
    merge_row(launch, row / launch.item_rows, row % launch.item_rows, number % parts,
              memory.merged);
  });
}

[[gnu::noinline]] static __device__ void write_heads(const MegakernelOp& op) {
  const auto p = params_of<KvWriteHeadsParams>(op);
  each_unit(op, [&](int number) { write_head(p, number / p.kv.heads, number % p.kv.heads); });
}

[[gnu::noinline]] static __device__ void write_latents(const MegakernelOp& op,
                                                       AttentionMemory& memory) {
  const auto p = params_of<KvWriteParams>(op);
  each_unit(op, [&](int number) { write_latent(p, number, memory.warp_sum); });
}

__device__ inline void turn_pairs(const MegakernelOp& op) {
  const auto p = params_of<RopeQueryParams>(op);
  each_unit(op, [&](int number) {
    turn_pair(p, std::int64_t{number} * kMegakernelThreads + threadIdx.x);
  });
}

}  // namespace dsm::kernels::cuda
