#include "worker/device/cuda_span_sums.h"

namespace dsm::device {

void CudaSpanSums::give(kernels::cuda::Products& launch) {
  launch.ld_partial = std::int64_t{launch.panels} * kernels::kPanel;
  launch.partial = static_cast<float*>(sums_.at_least(
      static_cast<std::size_t>(launch.spans * launch.rows * launch.ld_partial) * sizeof(float),
      stream_));
  const std::size_t bytes = static_cast<std::size_t>(launch.tile_count) *
                            static_cast<std::size_t>(launch.panels) * sizeof(std::uint32_t);
  launch.met = static_cast<std::uint32_t*>(met_.at_least(bytes, stream_));
  if (bytes > met_bytes_) {
    check(cudaMemsetAsync(launch.met, 0, bytes, stream_.get()), "clear memory");
    met_bytes_ = bytes;
  }
}

}  // namespace dsm::device
