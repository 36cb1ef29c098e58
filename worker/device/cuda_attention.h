// Attention of the CUDA backend: which kernel takes which items (kernels/cuda/attention_plan.h),
// their block tables on the GPU, and its scratch memory. For the backend's thread.
#pragma once

#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/attention_wide_plan.h"
#include "kernels/cuda/launch.h"
#include "worker/device/cuda_graphs.h"
#include "worker/device/cuda_megakernel.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_products.h"
#include "worker/device/cuda_sent_lists.h"
#include "worker/device/kernel_choice.h"

namespace dsm::device {

class CudaAttention {
 public:
  // `exact`: queries and exponentials as two BF16 terms. `many_rows`: kLibrary leaves out the
  // kernel of long prompts, to compare it.
  CudaAttention(const cudaDeviceProp& gpu, bool exact, ManyRows many_rows, const Stream& stream,
                Lists& lists, const SentLists& sent, const CudaGraphs& graphs,
                CudaProducts& products, CudaMegakernel& megakernel)
      : processors_(gpu.multiProcessorCount),
        shared_bytes_(static_cast<std::int64_t>(gpu.sharedMemPerBlockOptin)),
        exact_(exact),
        major_(gpu.major),
        packs_(!exact && many_rows != ManyRows::kLibrary),
        stream_(stream),
        lists_(lists),
        sent_(sent),
        graphs_(graphs),
        products_(products),
        megakernel_(megakernel) {}

  void run(const kernels::AttentionParams& params);

  // As Scratch::give_back().
  void give_back_scratch() {
    parts_.give_back();
    tiles_.give_back();
  }

 private:
  // Items as the GPU has them, or gets them with block tables of its own, each as far as the item's
  // last row sees.
  const kernels::AttentionItem* send_items(const kernels::AttentionParams& p);
  void send_tables(const kernels::AttentionParams& p, std::vector<kernels::AttentionItem>& items);
  // `launch` names what all items have in common; `p` is the host's.
  void run_prompts(const kernels::AttentionParams& p, kernels::cuda::AttentionLaunch launch);
  // All of wide_; `tiles`: room for what is packed at a time.
  void run_wide(const kernels::cuda::AttentionLaunch& launch, void* tiles,
                const kernels::cuda::WideRows& to, const kernels::cuda::WideFp8Rows& to_fp8);
  void run_splits(const kernels::AttentionParams& p, kernels::cuda::AttentionLaunch launch);

  const int processors_;
  const std::int64_t shared_bytes_;  // that a thread block can have
  const bool exact_;
  const int major_;
  const bool packs_;
  const Stream& stream_;
  Lists& lists_;
  const SentLists& sent_;
  const CudaGraphs& graphs_;
  CudaProducts& products_;  // which may take what it gives as operands
  CudaMegakernel& megakernel_;
  kernels::cuda::AttentionPlan plan_;
  kernels::cuda::WideAttentionPlan wide_;
  std::vector<kernels::AttentionItem> items_;
  Scratch parts_;
  Scratch tiles_;
};

}  // namespace dsm::device
