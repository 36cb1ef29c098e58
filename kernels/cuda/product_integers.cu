// Products with weights in INT8 and INT4, which become BF16 in registers, exactly, when they are
// used: on their way they are as in memory. As with FP8 a split is a block of the weight's scales,
// so a column's sum is multiplied by its scale once.
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

template <DType kType>
struct IntegerSplit {
  static constexpr int kInputs = kType == DType::kInt8 ? kStepInputs : kPairInputs;
  static constexpr int kWordInputs = inputs_per_word(kType);
  const std::uint32_t* panel;
  int lead;  // inputs of the first word that are before input 0
  int begin;
  int end;
  int lane;
  const float* scales;  // of the panel's columns

  __device__ __forceinline__ auto load(int at) const {
    if constexpr (kType == DType::kInt8) {
      return load_int8(panel, lead, at, end, lane);
    } else {
      return load_int4(panel, lead, at, end, lane);
    }
  }
  __device__ __forceinline__ bool whole() const {
    return begin >= 0 && end - begin == kSplitInputs;
  }
  __device__ __forceinline__ auto whole_step(int step) const {
    const std::uint32_t* from =
        panel + static_cast<std::int64_t>((begin + lead) / kWordInputs) * kPanel;
    if constexpr (kType == DType::kInt8) {
      return load_int8<true>(from, 0, step * kInputs, 0, lane);
    } else {
      return load_int4<true>(from, 0, step * kInputs, 0, lane);
    }
  }
};

// As tensor_chain, for INT4, whose words are for two steps.
template <int kTiles, int kTerms, class Rows>
__device__ __forceinline__ void int4_chain(const IntegerSplit<DType::kInt4>& split,
                                           Ahead<IntegerSplit<DType::kInt4>>& ahead, Rows& rows,
                                           TensorSums<kTiles>& sums) {
  rows.begin((split.end - split.begin + kPairInputs - 1) / kPairInputs * 2);
  for_each_step<kTiles>(split, ahead, rows, [&](int at, const Int4Words& words, auto whole) {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      tensor_step<kTiles, kTerms, decltype(whole)::value>(
          rows, (at - split.begin) / kStepInputs + step, int4_input(at, step, split.lane),
          split.end, split.lane, int4_operand(words, step), sums);
    }
  });
}

template <DType kType, int kTerms>
struct IntegerWeights : OperandRows<kTerms> {
  static constexpr int kMostTiles = max_tile_rows(kType) / kTileRows;
  static constexpr int kInputs = inputs_per_word(kType);
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  template <int kTiles>
  using Split = IntegerSplit<kType>;
  template <int kTiles>
  static __device__ Split<kTiles> split(const PackedMatrix& w, int panel, int number, int lane) {
    const int lead = w.scale_phase % kInputs;
    const int words = (lead + w.k + kInputs - 1) / kInputs;
    // Words begin where splits do, the first one before input 0.
    return {static_cast<const std::uint32_t*>(w.data) +
                static_cast<std::int64_t>(panel) * words * kPanel,
            lead,
            number == 0 ? -lead : split_begin(w, number),
            split_end(w, number),
            lane,
            scales_of_split(w, panel, number)};
  }

  template <int kTiles, class Rows>
  static __device__ void chain(const PackedMatrix&, int, int, const Split<kTiles>& split,
                               Ahead<Split<kTiles>>& ahead, Rows& rows, Sums<kTiles>& sums) {
    if constexpr (kType == DType::kInt8) {
      tensor_chain<kTiles, kTerms>(split, ahead, rows, sums);
    } else {
      int4_chain<kTiles, kTerms>(split, ahead, rows, sums);
    }
    sums.scale(split.scales, 1.0F, split.lane);
  }
};

template <DType kType>
void integer_products(const Products& p, Stream stream) {
  if (p.exact) {
    launch_products<IntegerWeights<kType, 2>>(p, stream);
  } else {
    launch_products<IntegerWeights<kType, 1>>(p, stream);
  }
}

}  // namespace

void int8_products(const Products& p, Stream stream) {
  integer_products<DType::kInt8>(p, stream);
}
void int4_products(const Products& p, Stream stream) {
  integer_products<DType::kInt4>(p, stream);
}

}  // namespace dsm::kernels::cuda
