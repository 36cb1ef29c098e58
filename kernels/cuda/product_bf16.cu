// Products with weights in BF16.
#include "kernels/cuda/product_bf16.cuh"

namespace dsm::kernels::cuda {

void bf16_products(const Products& p, Stream stream) {
  if (p.exact) {
    launch_products<Bf16Weights<2>>(p, stream);
  } else {
    launch_products<Bf16Weights<1>>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
