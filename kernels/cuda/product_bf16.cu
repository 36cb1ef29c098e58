// Products with weights in BF16.
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

template <int kTerms>
struct Bf16Weights : OperandRows<kTerms> {
  static constexpr int kMostTiles = max_tile_rows(DType::kBF16) / kTileRows;
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  template <int kTiles, class Rows>
  static __device__ void chain(const PackedMatrix& w, int panel, int split, Rows& rows, int lane,
                               Sums<kTiles>& sums) {
    const std::int64_t pairs = (w.k + 1) / 2;
    const auto* weights = static_cast<const std::uint32_t*>(w.data) + panel * pairs * kPanel;
    const int end = split_end(w, split);
    tensor_chain<kTiles, kTerms>(
        rows, split_begin(w, split), end, lane,
        [&](int at) { return load_bf16(weights, at, end, lane, kTiles == 1); }, sums);
  }
};

}  // namespace

void bf16_products(const Products& p, Stream stream) {
  if (p.exact) {
    launch_products<Bf16Weights<2>>(p, stream);
  } else {
    launch_products<Bf16Weights<1>>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
