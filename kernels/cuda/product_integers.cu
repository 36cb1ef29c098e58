// Products with weights in INT8 and INT4, which become BF16 in registers, exactly. As with FP8 a
// split is a block of the weight's scales, so a column's sum is multiplied by its scale once.
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

// As tensor_chain, for INT4, whose words are for two steps.
template <int kTiles, int kTerms, class Rows>
__device__ __forceinline__ void int4_chain(Rows& rows, const std::uint32_t* panel, int lead,
                                           int begin, int end, int lane, TensorSums<kTiles>& sums) {
  rows.begin((end - begin + kPairInputs - 1) / kPairInputs * 2);
  for_each_step(
      begin, end, kPairInputs, [&](int at) { return load_int4(panel, lead, at, end, lane); },
      [&](int at, const Int4Words& words) {
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          tensor_step<kTiles, kTerms>(rows, (at - begin) / kStepInputs + step,
                                      int4_input(at, step, lane), end, lane,
                                      int4_operand(words, step), sums);
        }
      });
}

template <DType kType, int kTerms>
struct IntegerWeights : OperandRows<kTerms> {
  static constexpr int kMostTiles = max_tile_rows(kType) / kTileRows;
  static constexpr int kInputs = inputs_per_word(kType);
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  template <int kTiles, class Rows>
  static __device__ void chain(const PackedMatrix& w, int panel, int split, Rows& rows, int lane,
                               Sums<kTiles>& sums) {
    const int lead = w.scale_phase % kInputs;
    const int words = (lead + w.k + kInputs - 1) / kInputs;
    const auto* weights = static_cast<const std::uint32_t*>(w.data) +
                          static_cast<std::int64_t>(panel) * words * kPanel;
    // Words begin where splits do, the first one before input 0.
    const int begin = split == 0 ? -lead : split_begin(w, split);
    const int end = split_end(w, split);
    if constexpr (kType == DType::kInt8) {
      tensor_chain<kTiles, kTerms>(
          rows, begin, end, lane, [&](int at) { return load_int8(weights, lead, at, end, lane); },
          sums);
    } else {
      int4_chain<kTiles, kTerms>(rows, weights, lead, begin, end, lane, sums);
    }
    sums.scale(w.scales + (static_cast<std::int64_t>(panel) * splits_of(w) + split) * kPanel, 1.0F,
               lane);
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
