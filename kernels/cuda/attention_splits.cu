// Attention of few rows over much of the cache, as in decoding: a thread block for each item (up to
// 32 (token, head) pairs of one sequence and KV head) and each split, a block of the cache
// (attention_splits.cuh), which attention.cu merges.
#include "kernels/cuda/attention_splits.cuh"

namespace dsm::kernels::cuda {
namespace {

template <DType kType, int kTiles, int kTerms>
__global__ void __launch_bounds__(kAttentionThreads, kTiles == 1 ? 2 : 1)
    split_kernel(const AttentionLaunch launch) {
  follow_previous_kernel();
  attend_to_split<kType, kTiles, kTerms>(launch, static_cast<int>(blockIdx.x),
                                         static_cast<int>(blockIdx.y), dynamic_shared<uint4>());
}

template <DType kType, int kTiles, int kTerms>
void launch_tiles(const AttentionLaunch& p, Stream stream) {
  static_assert(SplitShared<kTiles, kTerms>::bytes(kMaxKeyDim) <= kMostSharedBytes);
  const dim3 grid(static_cast<unsigned>(p.items), static_cast<unsigned>(p.splits));
  launch_early(split_kernel<kType, kTiles, kTerms>, grid, kAttentionThreads,
               SplitShared<kTiles, kTerms>::bytes(p.params.kv.key_dim), stream, p);
}

template <DType kType>
void launch_type(const AttentionLaunch& p, Stream stream) {
  if (p.item_rows <= kTileRows && p.exact) {
    launch_tiles<kType, 1, 2>(p, stream);
  } else if (p.item_rows <= kTileRows) {
    launch_tiles<kType, 1, 1>(p, stream);
  } else if (p.exact) {
    launch_tiles<kType, 2, 2>(p, stream);
  } else {
    launch_tiles<kType, 2, 1>(p, stream);
  }
}

}  // namespace

void attention_splits(const AttentionLaunch& p, Stream stream) {
  switch (p.params.kv.dtype) {
    case DType::kF32:
      return launch_type<DType::kF32>(p, stream);
    case DType::kBF16:
      return launch_type<DType::kBF16>(p, stream);
    default:
      return launch_type<DType::kF8E4M3>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
