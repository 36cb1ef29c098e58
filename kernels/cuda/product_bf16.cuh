// Weights in BF16 as product.cuh wants them.
#pragma once

#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {

template <bool kOnce>
struct Bf16Split {
  static constexpr int kInputs = kStepInputs;
  const std::uint32_t* panel;
  int begin;
  int end;
  int lane;

  __device__ __forceinline__ FragmentB load(int at) const {
    return load_bf16(panel, at, end, lane, kOnce);
  }
  __device__ __forceinline__ bool whole() const { return end - begin == kSplitInputs; }
  __device__ __forceinline__ FragmentB whole_step(int step) const {
    return load_bf16<true>(panel + static_cast<std::int64_t>(begin / 2) * kPanel, step * kInputs, 0,
                           lane, kOnce);
  }
};

template <int kTerms>
struct Bf16Weights : OperandRows<kTerms> {
  static constexpr int kMostTiles = max_tile_rows(DType::kBF16) / kTileRows;
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  template <int kTiles>
  using Split = Bf16Split<kTiles == 1>;
  template <int kTiles>
  static __device__ Split<kTiles> split(const PackedMatrix& w, int panel, int number, int lane) {
    const std::int64_t pairs = (w.k + 1) / 2;
    return {static_cast<const std::uint32_t*>(w.data) + panel * pairs * kPanel,
            split_begin(w, number), split_end(w, number), lane};
  }

  template <int kTiles, class OnTheirWay, class Rows>
  static __device__ void chain(const PackedMatrix&, int, int, const Split<kTiles>& split,
                               OnTheirWay& ahead, Rows& rows, Sums<kTiles>& sums) {
    tensor_chain<kTiles, kTerms>(split, ahead, rows, sums);
  }
};

}  // namespace dsm::kernels::cuda
