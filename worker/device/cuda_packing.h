// Panels of a matrix on a GPU, packed in memory of the host.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cpu/pack.h"

namespace dsm::device {

struct HostPanels {
  std::vector<std::byte> values;
  std::byte* to_values = nullptr;  // where they belong
  std::vector<float> scales;       // none, or
  float* to_scales = nullptr;
  bool numbers = true;  // as kernels::pack_panels() says
};

// Panels [begin, end) of `into`, which pieces have side by side.
HostPanels pack_on_host(std::span<const kernels::WeightPiece> pieces,
                        const kernels::PackedMatrix& into, int begin, int end);

}  // namespace dsm::device
