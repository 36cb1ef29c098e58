// Attention over the paged KV cache, for latent attention (one head of keys, whose values are its
// latents) and grouped-query attention alike: of splits side by side (attention_splits.cu), which
// are merged here in their order, or of a prompt's rows block by block (attention_prompt.cu).
#include "kernels/cuda/attention_merge.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kMergeThreads = 128;

// A thread block for each row of an item and kMergeThreads columns.
__global__ void __launch_bounds__(kMergeThreads) merge_kernel(const AttentionLaunch launch) {
  follow_previous_kernel();
  __shared__ MergedPart<kMergeThreads> part;
  merge_row(launch, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
            static_cast<int>(blockIdx.z), part);
}

}  // namespace

void attention(const AttentionLaunch& p, Stream stream) {
  attention_splits(p, stream);
  const dim3 grid(
      static_cast<unsigned>(p.items), static_cast<unsigned>(p.item_rows),
      static_cast<unsigned>((p.params.kv.value_dim + kMergeThreads - 1) / kMergeThreads));
  launch_early(merge_kernel, grid, kMergeThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
