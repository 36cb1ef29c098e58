// What the devices of this process have started, where that is counted: on the emulated GPU.
#pragma once

#include <cstdint>

#ifdef DSM_CUDA_EMULATED
#include "kernels/cuda/emulation/graph.h"
#endif

namespace dsm::model {

#ifdef DSM_CUDA_EMULATED
inline constexpr bool kCounted = true;
inline std::uint64_t graphs_started() {
  return emulation::graphs_started();
}
inline std::uint64_t kernels_started() {
  return emulation::kernels_started();
}
#else
inline constexpr bool kCounted = false;
inline std::uint64_t graphs_started() {
  return 0;
}
inline std::uint64_t kernels_started() {
  return 0;
}
#endif

}  // namespace dsm::model
