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

  template <int kTiles>
  using Split = Fp8Split<4, kTiles == 1>;
  template <int kTiles>
  static __device__ Split<kTiles> split(const PackedMatrix& w, int panel, int number, int lane) {
    return Split<kTiles>::of(w, panel, number, lane);
  }

  template <int kTiles, class Rows>
  static __device__ void chain(const PackedMatrix&, int, int, const Split<kTiles>& split,
                               Ahead<Split<kTiles>>& ahead, Rows& rows, Sums<kTiles>& sums) {
    tensor_chain<kTiles, kTerms>(split, ahead, rows, sums);
    sums.scale(split.scales, 0x1p-120F, split.lane);  // params.h: times 2^120
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
