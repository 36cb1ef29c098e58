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
#include "kernels/cuda/emulation/order.h"
#include "kernels/cuda/emulation/tensor_core.h"

namespace dsm::kernels::cuda {

using emulation::Races;
using emulation::tell;
using emulation::tell_here;
using emulation::Unwatched;

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
DSM_INLINED void wgmma_bf16(float (&d)[kSums], const std::uint32_t (&a)[4], const SharedRows& b,
                            int step) {
  if constexpr (!kAdds) {
    for (float& sum : d) sum = 0.0F;
  }
  emulation::WarpgroupOperands mine{d, a, b.first, 2 * kSums, step, emulation::here()};
  emulation::meet(0xffffffffU, emulation::multiply_shared_rows, &mine);
}
template <bool kAdds>
DSM_INLINED void wgmma_e4m3(float (&d)[32], const std::uint32_t (&a)[4], const SharedRows& b,
                            int step) {
  if (!kAdds) std::memset(d, 0, sizeof d);
  emulation::WarpgroupOperands mine{d, a, b.first, 64, step, emulation::here()};
  emulation::meet(0xffffffffU, emulation::multiply_shared_e4m3, &mine);
}
inline void wgmma_ready(std::uint32_t (&)[4]) {}
template <int kCount>
void wgmma_ready(float (&)[kCount]) {}
inline void wgmma_fence() {}
inline void wgmma_commit() {
  tell(&Races::end_group_of_products);
}
template <int kLeft>
void wgmma_wait() {
  tell(&Races::waited_for_products, kLeft);
}
template <int kCount>
void wgmma_done(float (&)[kCount]) {}
template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void leave_registers() {}

DSM_INLINED void load_transposed(const void* line, std::uint32_t (&v)[4]) {
  tell_here(&Races::access, line, 16, 0U);
  emulation::MatrixLines mine{line, v};
  emulation::meet(0xffffffffU, emulation::transpose_matrices, &mine);
}

// Copied when the thread waits for it, so that one that does not is found out.
DSM_INLINED void cp_async_16(void* shared, const void* from, bool there = true) {
  const void* const copied = there ? from : nullptr;
  tell_here(&Races::late_copy, shared, copied);
  emulation::copy_later(static_cast<uint4*>(shared), static_cast<const uint4*>(copied));
}
inline void cp_async_commit() {
  tell(&Races::end_group_of_copies);
  emulation::end_group_of_copies();
}
template <int kLeft>
DSM_INLINED void cp_async_wait() {
  tell(&Races::waited_for_groups, kLeft);
  const Unwatched copies;
  for (const auto& [to, from] : emulation::copies_until(kLeft)) {
    *static_cast<uint4*>(to) = from != nullptr ? *static_cast<const uint4*>(from) : uint4{};
  }
}

// There when a thread waits for it, as above.
DSM_INLINED void copies_begin(std::uint64_t* barrier, int threads) {
  tell_here(&Races::begin_arrivals, barrier);
  emulation::begin_turns(barrier, threads);
}
DSM_INLINED void copies_expect(std::uint64_t* barrier, int bytes) {
  tell_here(&Races::arrive, barrier, true, emulation::Reach::kBlock, false);
  emulation::expect_copies(barrier, bytes);
}
DSM_INLINED void copy_bytes(void* shared, const void* from, int bytes, std::uint64_t* barrier) {
  tell_here(&Races::copy, shared, from, static_cast<std::size_t>(bytes), barrier,
            emulation::turns_ended(barrier));
  const Unwatched copied;
  std::memset(shared, 0xff, static_cast<std::size_t>(bytes));  // NaN
  emulation::add_copy(barrier, {shared, from, bytes});
}
DSM_INLINED void copies_wait(std::uint64_t* barrier, int turn) {
  const auto copies = emulation::end_turn(barrier, turn);
  tell_here(&Races::waited_for_copies, barrier, emulation::turns_ended(barrier));
  const Unwatched copied;
  for (const auto& [to, from, bytes] : copies) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}

inline int block_of_cluster() {
  return static_cast<int>(emulation::block_of_cluster());
}
inline void cluster_barrier() {
  emulation::cluster_barrier();
}
DSM_INLINED void copy_bytes_to_cluster(void* shared, const void* from, int bytes,
                                       std::uint64_t* barrier, int blocks) {
  for (unsigned b = 0; b < static_cast<unsigned>(blocks); ++b) {
    copy_bytes(emulation::shared_of_block(shared, b), from, bytes,
               static_cast<std::uint64_t*>(emulation::shared_of_block(barrier, b)));
  }
}
// The barrier's word counts who came, in all turns, and how many come in each.
DSM_INLINED void arrivals_begin(std::uint64_t* barrier, int threads) {
  tell_here(&Races::begin_arrivals, barrier);
  const Unwatched begun;
  *barrier = static_cast<std::uint64_t>(threads) << 32;
}
DSM_INLINED void arrive_at(std::uint64_t* barrier, int block, emulation::Reach reach) {
  auto* const there = static_cast<std::uint64_t*>(
      emulation::shared_of_block(barrier, static_cast<unsigned>(block)));
  bool ended = false;
  {
    const Unwatched counted;
    ++*there;
    ended = (*there & 0xffffffffU) % (*there >> 32) == 0;
  }
  tell_here(&Races::arrive, there, there == barrier, reach, ended);
}
DSM_INLINED void arrive(std::uint64_t* barrier, int block) {
  arrive_at(barrier, block, emulation::Reach::kBlock);
}
DSM_INLINED void wait_for_arrivals(std::uint64_t* barrier, int turn, emulation::Reach reach) {
  emulation::wait_until([&] {
    const Unwatched looks;
    const std::uint64_t turns = (*barrier & 0xffffffffU) / (*barrier >> 32);
    return (turns & 1U) != (static_cast<unsigned>(turn) & 1U);
  });
  tell_here(&Races::waited, barrier, reach);
}
DSM_INLINED void arrivals_wait(std::uint64_t* barrier, int turn) {
  wait_for_arrivals(barrier, turn, emulation::Reach::kBlock);
}

DSM_INLINED void store_in_block(float* shared, int block, float value) {
  *static_cast<float*>(emulation::shared_of_block(shared, static_cast<unsigned>(block))) = value;
}
DSM_INLINED void arrive_with_stores(std::uint64_t* barrier, int block) {
  arrive_at(barrier, block, emulation::Reach::kCluster);
}
DSM_INLINED void stores_wait(std::uint64_t* barrier, int turn) {
  wait_for_arrivals(barrier, turn, emulation::Reach::kCluster);
}

// Read and written when the thread waits for it.
inline void copies_see_shared() {
  tell(&Races::proxy_fence);
}
DSM_INLINED void store_bytes(void* to, const void* shared, int bytes) {
  tell_here(&Races::store, to, shared, static_cast<std::size_t>(bytes));
  emulation::store_later({to, shared, bytes});
}
inline void stores_have_read() {
  tell(&Races::waited_for_stores, false);
  const Unwatched copied;
  for (const auto& [to, from, bytes] : emulation::stores_until_now()) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}
inline void stores_are_done() {
  stores_have_read();
  tell(&Races::waited_for_stores, true);
}
inline void barrier_of_first(int number, int threads) {
  emulation::barrier_of_first(number, threads);
}

DSM_INLINED uint4 load_once(const void* from) {
  tell_here(&Races::access, from, sizeof(uint4), emulation::kConstant);
  const Unwatched told;
  return *static_cast<const uint4*>(from);
}

inline void wait_for_previous_kernel() {}
inline void start_next_kernel() {}

DSM_INLINED std::uint32_t load_system(const std::uint32_t* from) {
  tell_here(&Races::strong, from, sizeof *from, emulation::Strong::kRead);
  return std::atomic_ref(*const_cast<std::uint32_t*>(from)).load(std::memory_order_relaxed);
}
DSM_INLINED uint4 load_system(const uint4* from) {
  return {load_system(&from->x), load_system(&from->y), load_system(&from->z),
          load_system(&from->w)};
}
DSM_INLINED void store_system(std::uint32_t* to, std::uint32_t v) {
  tell_here(&Races::strong, to, sizeof *to, emulation::Strong::kWrite);
  std::atomic_ref(*to).store(v, std::memory_order_relaxed);
}
DSM_INLINED void store_system(uint4* to, const uint4& v) {
  store_system(&to->x, v.x);
  store_system(&to->y, v.y);
  store_system(&to->z, v.z);
  store_system(&to->w, v.w);
}
inline void fence_system() {
  tell(&Races::fence, emulation::Scope::kDevice);
  std::atomic_thread_fence(std::memory_order_acq_rel);
}

DSM_INLINED void wait_for_turn(const std::uint32_t* word, std::uint32_t was) {
  emulation::wait_until([&] {
    const Unwatched looks;
    return ((*word ^ was) >> 31) != 0;
  });
  tell_here(&Races::strong, word, sizeof *word, emulation::Strong::kRead);
  tell(&Races::acquire);
}
inline void ask_second_cache(const void* line) {
  const Unwatched nothing_read;
  static_cast<void>(*static_cast<const volatile char*>(line));
}

inline std::int64_t nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline void let_others_run() {
  emulation::let_others_run();
}

}  // namespace dsm::kernels::cuda
