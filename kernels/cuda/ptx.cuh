// Instructions that CUDA C++ has no words for, each as a small function. emulation/include has the
// same functions in plain C++.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace dsm::kernels::cuda {

__device__ __forceinline__ void* dynamic_shared_memory() {
  extern __shared__ uint4 dynamic_shared_bytes[];
  return dynamic_shared_bytes;
}

// Two BF16 values, the first in the low half, each the nearest to its argument.
__device__ __forceinline__ std::uint32_t nearest_bf16x2(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// 2^x, within 2^-22 of it; zero below 2^-126.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// a * b + c of two BF16 values each, rounded once.
__device__ __forceinline__ std::uint32_t fma_bf16x2(std::uint32_t a, std::uint32_t b,
                                                    std::uint32_t c) {
  std::uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// D[16 x 8] += A[16 x 16] B[16 x 8] in BF16 with sums in FP32, by all lanes of a warp (fragments.h
// says which lane holds what).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// D[16 x 8] += A[16 x 32] B[32 x 8] in FP8 (E4M3) with sums in FP32; from sm_89 on. Of lane 4g + q
//   A: registers 0 .. 3 hold rows g, g + 8, g, g + 8; slots 4q .. 4q + 3 (0, 1) or those 16 further
//   B: registers 0, 1 hold column g, the same slots
// and D is as mma_bf16's.
__device__ __forceinline__ void mma_e4m3(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 890
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// Starts to copy 16 bytes from memory to shared memory, both aligned to 16, or to fill them with
// zeros. They are there once the thread has waited for the group that they were committed in; for
// other threads, after a barrier as well.
__device__ __forceinline__ void cp_async_16(void* shared, const void* from, bool there = true) {
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until all of the thread's groups but the last kLeft are there.
template <int kLeft>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// 16 bytes that no other thread block reads soon, past the first cache. Not for memory that the
// kernel writes.
__device__ __forceinline__ uint4 load_once(const void* from) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(from));
  return v;
}

// For kernels started before the previous one on their stream has ended (programmatic launch; from
// sm_90 on): until its writes are there, and: the next may start.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void start_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Memory that other GPUs and the host use at the same time: each word as a whole, in any order
// beside others; from sm_70 on.
__device__ __forceinline__ uint4 load_system(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ std::uint32_t load_system(const std::uint32_t* from) {
  std::uint32_t v;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ void store_system(uint4* to, const uint4& v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ __forceinline__ void store_system(std::uint32_t* to, std::uint32_t v) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}
// What came before it is seen by whoever sees what the thread stores after it, and the other way
// round: what it has seen before it came after what that thread did (release and acquire).
__device__ __forceinline__ void fence_system() {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
}

// A clock that goes on while the kernel runs.
__device__ __forceinline__ std::int64_t nanoseconds() {
  std::int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// A thread waits for another kernel: nothing to be done where kernels run side by side.
__device__ __forceinline__ void let_others_run() {}

}  // namespace dsm::kernels::cuda
