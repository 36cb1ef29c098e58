// Memory of a device and matrices with noise in them: what operators are measured on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/device/backend.h"

namespace dsm::bench {

class Noise {
 public:
  // The backend outlives it.
  explicit Noise(device::Backend& backend);

  float* floats(std::int64_t count);
  void fill(void* to, std::int64_t bytes);
  // A weight [n, k] as it is computed with: kInt8 and kInt4 are rounded to. Noise for BF16 and for
  // E4M3 with scales alike.
  kernels::PackedMatrix matrix(int n, int k, kernels::DType dtype);

 private:
  device::Backend& backend_;
  std::vector<std::uint32_t> noise_;
  std::vector<std::byte> stored_;
};

}  // namespace dsm::bench
