// Products with weights in FP8 blocks. A split is a block of the weight's scales, so a column's sum
// is multiplied by its scale once.
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

template <int kTerms>
struct Fp8Weights : OperandRows<kTerms> {
  static constexpr int kMostTiles = max_tile_rows(DType::kF8E4M3) / kTileRows;
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  template <int kTiles, class Rows>
  static __device__ void chain(const PackedMatrix& w, int panel, int split, Rows& rows, int lane,
                               Sums<kTiles>& sums) {
    const auto* weights =
        static_cast<const std::uint8_t*>(w.data) + static_cast<std::int64_t>(panel) * w.k * kPanel;
    const int end = split_end(w, split);
    tensor_chain<kTiles, kTerms>(
        rows, split_begin(w, split), end, lane,
        [&](int at) { return load_e4m3<4>(weights, at, end, lane, kTiles == 1); }, sums);
    sums.scale(w.scales + (static_cast<std::int64_t>(panel) * splits_of(w) + split) * kPanel,
               0x1p-120F, lane);  // params.h: times 2^120
  }
};

}  // namespace

void fp8_products(const Products& p, Stream stream) {
  if (p.exact) {
    launch_products<Fp8Weights<2>>(p, stream);
  } else {
    launch_products<Fp8Weights<1>>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
