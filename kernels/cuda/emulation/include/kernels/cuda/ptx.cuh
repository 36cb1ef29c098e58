// The functions of kernels/cuda/ptx.cuh in plain C++: this folder stands before it on the include
// path.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/emulation/bulk_copy.h"
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

// Done at once; a warp's 16 lines are a product of their own.
struct SharedRows {
  const void* first;
};
inline SharedRows shared_rows(const void* shared) {
  return {shared};
}
template <bool kAdds = true, int kSums>
void wgmma_bf16(float (&d)[kSums], const std::uint32_t (&a)[4], const SharedRows& b, int step) {
  if constexpr (!kAdds) {
    for (float& sum : d) sum = 0.0F;
  }
  emulation::WarpgroupOperands mine{d, a, b.first, 2 * kSums, step};
  emulation::meet(0xffffffffU, emulation::multiply_shared_rows, &mine);
}
template <bool kAdds>
void wgmma_e4m3(float (&d)[32], const std::uint32_t (&a)[4], const SharedRows& b, int step) {
  if (!kAdds) std::memset(d, 0, sizeof d);
  emulation::WarpgroupOperands mine{d, a, b.first, 64, step};
  emulation::meet(0xffffffffU, emulation::multiply_shared_e4m3, &mine);
}
inline void wgmma_ready(std::uint32_t (&)[4]) {}
template <int kCount>
void wgmma_ready(float (&)[kCount]) {}
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int kLeft>
void wgmma_wait() {}
template <int kCount>
void wgmma_done(float (&)[kCount]) {}
template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void leave_registers() {}

inline void load_transposed(const void* line, std::uint32_t (&v)[4]) {
  emulation::MatrixLines mine{line, v};
  emulation::meet(0xffffffffU, emulation::transpose_matrices, &mine);
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

// There when a thread waits for it, as above.
inline void copies_begin(std::uint64_t* barrier, int threads) {
  emulation::begin_turns(barrier, threads);
}
inline void copies_expect(std::uint64_t* barrier, int bytes) {
  emulation::expect_copies(barrier, bytes);
}
inline void copy_bytes(void* shared, const void* from, int bytes, std::uint64_t* barrier) {
  std::memset(shared, 0xff, static_cast<std::size_t>(bytes));  // NaN
  emulation::add_copy(barrier, {shared, from, bytes});
}
inline void copies_wait(std::uint64_t* barrier, int turn) {
  for (const auto& [to, from, bytes] : emulation::end_turn(barrier, turn)) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}

inline int block_of_cluster() {
  return static_cast<int>(emulation::block_of_cluster());
}
inline void cluster_barrier() {
  emulation::cluster_barrier();
}
inline void copy_bytes_to_cluster(void* shared, const void* from, int bytes, std::uint64_t* barrier,
                                  int blocks) {
  for (unsigned b = 0; b < static_cast<unsigned>(blocks); ++b) {
    copy_bytes(emulation::shared_of_block(shared, b), from, bytes,
               static_cast<std::uint64_t*>(emulation::shared_of_block(barrier, b)));
  }
}
// The barrier's word counts who came, in all turns, and how many come in each.
inline void arrivals_begin(std::uint64_t* barrier, int threads) {
  *barrier = static_cast<std::uint64_t>(threads) << 32;
}
inline void arrive(std::uint64_t* barrier, int block) {
  ++*static_cast<std::uint64_t*>(emulation::shared_of_block(barrier, static_cast<unsigned>(block)));
}
inline void arrivals_wait(std::uint64_t* barrier, int turn) {
  emulation::wait_until([&] {
    const std::uint64_t turns = (*barrier & 0xffffffffU) / (*barrier >> 32);
    return (turns & 1U) != (static_cast<unsigned>(turn) & 1U);
  });
}

inline void store_in_block(float* shared, int block, float value) {
  *static_cast<float*>(emulation::shared_of_block(shared, static_cast<unsigned>(block))) = value;
}
inline void arrive_with_stores(std::uint64_t* barrier, int block) {
  arrive(barrier, block);
}
inline void stores_wait(std::uint64_t* barrier, int turn) {
  arrivals_wait(barrier, turn);
}

// Read and written when the thread waits for it.
inline void copies_see_shared() {}
inline void store_bytes(void* to, const void* shared, int bytes) {
  emulation::store_later({to, shared, bytes});
}
inline void stores_have_read() {
  for (const auto& [to, from, bytes] : emulation::stores_until_now()) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}
inline void stores_are_done() {
  stores_have_read();
}
inline void barrier_of_first(int number, int threads) {
  emulation::barrier_of_first(number, threads);
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

inline void wait_for_turn(const std::uint32_t* word, std::uint32_t was) {
  emulation::wait_until([&] { return ((*word ^ was) >> 31) != 0; });
}
inline void ask_second_cache(const void* line) {
  static_cast<void>(*static_cast<const volatile char*>(line));
}

inline std::int64_t nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline void let_others_run() {
  emulation::let_others_run();
}

}  // namespace dsm::kernels::cuda
