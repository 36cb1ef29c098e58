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

// Two FP8 values (E4M3), the first in the low byte, each the nearest to its argument or 448 with
// its sign; from sm_89 on.
__device__ __forceinline__ std::uint32_t nearest_e4m3x2([[maybe_unused]] float first,
                                                        [[maybe_unused]] float second) {
#if __CUDA_ARCH__ >= 890
  std::uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  return pair;
#else
  __trap();
  return 0;
#endif
}

// 2^x, within 2^-22 of it; zero below 2^-126.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// (a & b) | c, in one instruction also where b and c are constants.
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
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

// A tile of rows in BF16 in shared memory as a warpgroup's product takes it: 64 inputs of a row are
// 128 bytes, of which chunk c of 16 bytes stands at place c ^ (row % 8); aligned to 1,024 bytes.
struct SharedRows {
  std::uint64_t descriptor;
};
__device__ __forceinline__ SharedRows shared_rows(const void* shared) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  constexpr std::uint64_t kLeading = 1;         // not looked at where rows are swizzled
  constexpr std::uint64_t kStride = 1024 >> 4;  // from 8 rows to the next 8
  constexpr std::uint64_t kSwizzle128 = 1;
  return {(address & 0x3ffffU) >> 4 | kLeading << 16 | kStride << 32 | kSwizzle128 << 62};
}

// D[64 x rows] += A[64 x 16] B[16 x rows] in BF16 with sums in FP32 by a warpgroup (four warps, the
// first a multiple of four), with 64, 128 or 256 rows; sm_90a alone. Warp w's lane 4g + q has of
//   A: registers 0 .. 3 are lines 16 w + g, + 8, g, + 8; inputs 2q, 2q + 1 (0, 1) or those 8
//   further B: inputs 16 step .. of a SharedRows' 64 D: registers 4j, 4j + 1 are line 16 w + g,
//   rows 8j + 2q, 8j + 2q + 1; 4j + 2, 4j + 3 line g + 8
// It is done when wgmma_wait() says so: until then nobody may touch D, A or B. Without kAdds D
// becomes A B, whatever it was.
#define DSM_SUMS_8(d, i)                                                              \
  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), \
      "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
template <bool kAdds = true>
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], const std::uint32_t (&a)[4],
                                           const SharedRows& b, int step) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, adds, 1, 1, 0;\n"
      "}"
      : DSM_SUMS_8(d, 0), DSM_SUMS_8(d, 8), DSM_SUMS_8(d, 16), DSM_SUMS_8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor + step * 2),
        "n"(kAdds ? 1 : 0));
#else
  __trap();
#endif
}
template <bool kAdds = true>
__device__ __forceinline__ void wgmma_bf16(float (&d)[64], const std::uint32_t (&a)[4],
                                           const SharedRows& b, int step) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, adds, 1, 1, 0;\n"
      "}"
      : DSM_SUMS_8(d, 0), DSM_SUMS_8(d, 8), DSM_SUMS_8(d, 16), DSM_SUMS_8(d, 24), DSM_SUMS_8(d, 32),
        DSM_SUMS_8(d, 40), DSM_SUMS_8(d, 48), DSM_SUMS_8(d, 56)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor + step * 2),
        "n"(kAdds ? 1 : 0));
#else
  __trap();
#endif
}
__device__ __forceinline__ void wgmma_bf16(float (&d)[128], const std::uint32_t (&a)[4],
                                           const SharedRows& b, int step) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,"
      " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111,"
      " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "{%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
      : DSM_SUMS_8(d, 0), DSM_SUMS_8(d, 8), DSM_SUMS_8(d, 16), DSM_SUMS_8(d, 24), DSM_SUMS_8(d, 32),
        DSM_SUMS_8(d, 40), DSM_SUMS_8(d, 48), DSM_SUMS_8(d, 56), DSM_SUMS_8(d, 64),
        DSM_SUMS_8(d, 72), DSM_SUMS_8(d, 80), DSM_SUMS_8(d, 88), DSM_SUMS_8(d, 96),
        DSM_SUMS_8(d, 104), DSM_SUMS_8(d, 112), DSM_SUMS_8(d, 120)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor + step * 2));
#else
  __trap();
#endif
}
// D[64 x 64] (+)= A[64 x 32] B[32 x 64] in FP8 (E4M3) with sums in FP32, likewise. D is overwritten
// unless kAdds. Of
//   A: registers 0 .. 3 are lines 16 w + g, + 8, g, + 8; inputs 4q .. 4q + 3 (0, 1) or those 16
//   further B: inputs 32 step .. of rows that are 128 inputs, in chunks as a SharedRows' of 64 D:
//   as wgmma_bf16's
template <bool kAdds>
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], const std::uint32_t (&a)[4],
                                           const SharedRows& b, int step) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, adds, 1, 1;\n"
      "}"
      : DSM_SUMS_8(d, 0), DSM_SUMS_8(d, 8), DSM_SUMS_8(d, 16), DSM_SUMS_8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor + step * 2),
        "n"(kAdds ? 1 : 0));
#else
  __trap();
#endif
}
#undef DSM_SUMS_8
// The compiler writes operands no later than here.
__device__ __forceinline__ void wgmma_ready(std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void wgmma_ready(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
// Before the first of several products whose registers the warp has written.
__device__ __forceinline__ void wgmma_fence() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
// Ends a group of products.
__device__ __forceinline__ void wgmma_commit() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until all of the warp's groups but the last kLeft are done.
template <int kLeft>
__device__ __forceinline__ void wgmma_wait() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
#endif
}
// The compiler reads sums no earlier than here.
template <int kCount>
__device__ __forceinline__ void wgmma_done(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
// A warpgroup asks for registers, so many for each thread, or gives back what it has above; sm_90a
// alone. All that a thread block's warpgroups have together is what it was started with.
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void leave_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

// Four matrices of 8 lines of 16 bytes in shared memory, by all lanes of a warp: lane 8 m + r says
// where line r of matrix m is, and lane 4g + q gets in v[m] bytes 2g and 2g + 1 of its line 2q and
// then of line 2q + 1.
__device__ __forceinline__ void load_transposed(const void* line, std::uint32_t (&v)[4]) {
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(line));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(from)
               : "memory");
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

// Copies of many bytes to shared memory, by few threads for all; from sm_90 on. They are seen by
// whoever waits for them and by warpgroups' products that it starts then. A barrier in shared
// memory says when: its turns are numbered 0, 1, ..., and in each of them so many threads say how
// many bytes their copies are, and start them. One thread begins the barrier, before a barrier of
// the block.
__device__ __forceinline__ std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}
__device__ __forceinline__ void copies_begin([[maybe_unused]] std::uint64_t* barrier,
                                             [[maybe_unused]] int threads) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], %1;\n"
      "fence.proxy.async.shared::cta;" ::"r"(shared_address(barrier)),
      "r"(threads)
      : "memory");
#endif
}
__device__ __forceinline__ void copies_expect([[maybe_unused]] std::uint64_t* barrier,
                                              [[maybe_unused]] int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#endif
}
// Both sides and `bytes` are multiples of 16.
__device__ __forceinline__ void copy_bytes([[maybe_unused]] void* shared,
                                           [[maybe_unused]] const void* from,
                                           [[maybe_unused]] int bytes,
                                           [[maybe_unused]] std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}
// Until the copies of a turn are there: the last one, or the one before.
__device__ __forceinline__ void copies_wait([[maybe_unused]] std::uint64_t* barrier,
                                            [[maybe_unused]] int turn) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t there = 0;
  while (there == 0) {
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n"
        "}"
        : "=r"(there)
        : "r"(shared_address(barrier)), "r"(turn & 1)
        : "memory");
  }
#endif
}

// Blocks that run side by side on processors next to each other (launch_clusters() of device.cuh);
// from sm_90 on. The number of this one, and a barrier for all their threads: what came before it
// in one block is seen after it in the others.
__device__ __forceinline__ int block_of_cluster() {
  std::uint32_t block = 0;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
#endif
  return static_cast<int>(block);
}
__device__ __forceinline__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "fence.mbarrier_init.release.cluster;\n"
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
#endif
}
// copy_bytes() to the same place in the first `blocks` of the cluster; each block's barrier at that
// place expects the bytes.
__device__ __forceinline__ void copy_bytes_to_cluster([[maybe_unused]] void* shared,
                                                      [[maybe_unused]] const void* from,
                                                      [[maybe_unused]] int bytes,
                                                      [[maybe_unused]] std::uint64_t* barrier,
                                                      [[maybe_unused]] int blocks) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)),
      "h"(static_cast<std::uint16_t>((1 << blocks) - 1))
      : "memory");
#else
  __trap();
#endif
}
// A barrier at which threads of the cluster's blocks say that they have come, so many in each turn,
// without waiting, and others of its block wait for them. What those threads have read before is
// read, so it may be written over; what they have written is not sure to be seen in other blocks,
// which would cost a fence each time.
__device__ __forceinline__ void arrivals_begin(std::uint64_t* barrier, int threads) {
  copies_begin(barrier, threads);
}
__device__ __forceinline__ void arrive([[maybe_unused]] std::uint64_t* barrier,
                                       [[maybe_unused]] int block) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(block)
      : "memory");
#endif
}
__device__ __forceinline__ void arrivals_wait(std::uint64_t* barrier, int turn) {
  copies_wait(barrier, turn);
}
// Values for other blocks: what a thread stores at the same place of a block's shared memory, and
// a barrier whose threads see in its turn all that those who came had stored before they came.
__device__ __forceinline__ void store_in_block([[maybe_unused]] float* shared,
                                               [[maybe_unused]] int block,
                                               [[maybe_unused]] float value) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.f32 [there], %2;\n"
      "}" ::"r"(shared_address(shared)),
      "r"(block), "f"(value)
      : "memory");
#endif
}
__device__ __forceinline__ void arrive_with_stores([[maybe_unused]] std::uint64_t* barrier,
                                                   [[maybe_unused]] int block) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(block)
      : "memory");
#endif
}
__device__ __forceinline__ void stores_wait([[maybe_unused]] std::uint64_t* barrier,
                                            [[maybe_unused]] int turn) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t there = 0;
  while (there == 0) {
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n"
        "}"
        : "=r"(there)
        : "r"(shared_address(barrier)), "r"(turn & 1)
        : "memory");
  }
#endif
}

// The other way: copies of many bytes from shared memory, by a thread that then says when they have
// read it, so that it may be written again, and when they have written all; from sm_90 on. What
// other threads have written to shared memory they see if these have said so before a barrier.
__device__ __forceinline__ void copies_see_shared() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void store_bytes([[maybe_unused]] void* to,
                                            [[maybe_unused]] const void* shared,
                                            [[maybe_unused]] int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
      "cp.async.bulk.commit_group;" ::"l"(to),
      "r"(shared_address(shared)), "r"(bytes)
      : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void stores_have_read() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}
__device__ __forceinline__ void stores_are_done() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}
// A barrier for the block's first threads alone, whole warps; number 0 is __syncthreads()'s.
__device__ __forceinline__ void barrier_of_first(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
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

// Until the highest bit of *word is another than that of `was`; what was written before it changed
// is there then.
__device__ __forceinline__ void wait_for_turn(const std::uint32_t* word, std::uint32_t was) {
  std::uint32_t now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(word) : "memory");
  } while (((now ^ was) >> 31) == 0);
}
// 128 bytes that are wanted soon, to the second cache.
__device__ __forceinline__ void ask_second_cache(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
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
