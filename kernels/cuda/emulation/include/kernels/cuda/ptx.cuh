// The functions of kernels/cuda/ptx.cuh in plain C++: this folder stands before it on the include
// path.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/emulation/tensor_core.h"

namespace dsm::kernels::cuda {

inline void* dynamic_shared_memory() {
  return emulation::dynamic_shared_memory();
}

inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  emulation::LaneOperands mine{d, a, b};
  emulation::meet(0xffffffffU, emulation::multiply_bf16, &mine);
}

inline void mma_e4m3(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  emulation::LaneOperands mine{d, a, b};
  emulation::meet(0xffffffffU, emulation::multiply_e4m3, &mine);
}

// Copied when the thread waits for it, so that one that does not is found out.
inline void cp_async_16(void* shared, const void* from, bool there = true) {
  emulation::copy_later(static_cast<uint4*>(shared),
                        there ? static_cast<const uint4*>(from) : nullptr);
}
inline void cp_async_commit() {
  emulation::end_group_of_copies();
}
template <int kLeft>
void cp_async_wait() {
  for (const auto& [to, from] : emulation::copies_until(kLeft)) {
    *static_cast<uint4*>(to) = from != nullptr ? *static_cast<const uint4*>(from) : uint4{};
  }
}

inline uint4 load_once(const void* from) {
  return *static_cast<const uint4*>(from);
}

inline void wait_for_previous_kernel() {}
inline void start_next_kernel() {}

}  // namespace dsm::kernels::cuda
