#include "worker/device/cuda_operands.h"

#include <algorithm>

#include "kernels/cuda/product_exact.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

// Of operands at a time, unless one tile's are more: 32 tiles of 64 rows of 4,096 inputs, or 4 of
// 128 rows of 16,384. An H100's second cache has 50 MiB.
#ifndef DSM_CUDA_OPERAND_BYTES
#define DSM_CUDA_OPERAND_BYTES (std::int64_t{32} << 20)
#endif
constexpr std::int64_t kOperandBytes = DSM_CUDA_OPERAND_BYTES;

// And of those of the kernels for many rows in the loose mode, a part of which should have blocks
// for all processors: 32 tiles of 128 rows of 16,384 inputs.
constexpr std::int64_t kWideOperandBytes = 4 * kOperandBytes;

}  // namespace

template <class Part>
void CudaOperands::in_parts(cuda::Products& launch, std::int64_t tile_bytes,
                            std::int64_t most_bytes, const Part& part) {
  const int all = launch.tile_count;
  const int most = static_cast<int>(std::clamp<std::int64_t>(most_bytes / tile_bytes, 1, all));
  launch.x_operands = operands_.at_least(static_cast<std::size_t>(most * tile_bytes), stream_);
  for (int begin = 0; begin < all; begin += most) {
    launch.tile_count = std::min(most, all - begin);
    part();
    launch.tiles += launch.tile_count;
  }
}

void CudaOperands::multiply(cuda::Products launch, DType dtype) {
  if (!cuda::rows_are_packed(launch, dtype)) {
    cuda::products(launch, dtype, stream_.get());
    return;
  }
  in_parts(launch, cuda::operand_bytes_of_tile(launch), kOperandBytes, [&] {
    cuda::pack_rows(launch, dtype, stream_.get());
    cuda::products(launch, dtype, stream_.get());
  });
}

void CudaOperands::multiply(cuda::WideProducts launch) {
  if (launch.params.exact) {
    return in_parts(launch.params, cuda::exact_bytes_of_tile(launch), kOperandBytes, [&] {
      cuda::pack_exact_rows(launch, stream_.get());
      cuda::exact_products(launch, stream_.get());
    });
  }
  if (launch.params.x_operands != nullptr) return cuda::wide_products(launch, stream_.get());
  in_parts(launch.params, cuda::wide_bytes_of_tile(launch), kWideOperandBytes, [&] {
    cuda::pack_wide_rows(launch, stream_.get());
    cuda::wide_products(launch, stream_.get());
  });
}

void CudaOperands::multiply(cuda::WideFp8Products launch) {
  if (launch.params.x_operands != nullptr) return cuda::wide_fp8_products(launch, stream_.get());
  in_parts(launch.params, cuda::wide_fp8_bytes_of_tile(launch), kWideOperandBytes, [&] {
    cuda::pack_wide_fp8_rows(launch, stream_.get());
    cuda::wide_fp8_products(launch, stream_.get());
  });
}

}  // namespace dsm::device
