// The functions of kernels/cuda/ptx.cuh in plain C++: this folder stands before it on the include
// path.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/emulation/tensor_core.h"

namespace dsm::kernels::cuda {

inline void* dynamic_shared_memory() {
  return emulation::dynamic_shared_memory();
}

inline float power_of_two(float x) {
  return std::exp2(x);
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

inline std::uint32_t load_system(const std::uint32_t* from) {
  return std::atomic_ref(*const_cast<std::uint32_t*>(from)).load(std::memory_order_relaxed);
}
inline uint4 load_system(const uint4* from) {
  return {load_system(&from->x), load_system(&from->y), load_system(&from->z),
          load_system(&from->w)};
}
inline void store_system(std::uint32_t* to, std::uint32_t v) {
  std::atomic_ref(*to).store(v, std::memory_order_relaxed);
}
inline void store_system(uint4* to, const uint4& v) {
  store_system(&to->x, v.x);
  store_system(&to->y, v.y);
  store_system(&to->z, v.z);
  store_system(&to->w, v.w);
}
inline void fence_system() {
  std::atomic_thread_fence(std::memory_order_acq_rel);
}

inline std::int64_t nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline void let_others_run() {
  emulation::let_others_run();
}

}  // namespace dsm::kernels::cuda
