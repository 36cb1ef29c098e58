#include "worker/device/cuda_operands.h"

#include <algorithm>

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

// Of operands at a time, unless one tile's are more: 32 tiles of 64 rows of 4,096 inputs. An H100's
// second cache has 50 MiB.
#ifndef DSM_CUDA_OPERAND_BYTES
#define DSM_CUDA_OPERAND_BYTES (std::int64_t{32} << 20)
#endif
constexpr std::int64_t kOperandBytes = DSM_CUDA_OPERAND_BYTES;

}  // namespace

void CudaOperands::multiply(cuda::Products launch, DType dtype) {
  if (!cuda::rows_are_packed(launch, dtype)) {
    cuda::products(launch, dtype, stream_.get());
    return;
  }
  const std::int64_t tile_bytes = cuda::operand_bytes_of_tile(launch);
  const int all = launch.tile_count;
  const int most = static_cast<int>(std::clamp<std::int64_t>(kOperandBytes / tile_bytes, 1, all));
  launch.x_operands = operands_.at_least(static_cast<std::size_t>(most * tile_bytes), stream_);
  for (int begin = 0; begin < all; begin += most) {
    launch.tile_count = std::min(most, all - begin);
    cuda::pack_rows(launch, dtype, stream_.get());
    cuda::products(launch, dtype, stream_.get());
    launch.tiles += launch.tile_count;
  }
}

}  // namespace dsm::device
