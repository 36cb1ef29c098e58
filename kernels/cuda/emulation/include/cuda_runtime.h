// CUDA C++ for a C++ compiler: its words as macros, its built-in variables and functions. A kernel
// is a function that every thread of a block runs on a stack of its own (block.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "cuda_runtime_api.h"
#include "kernels/cuda/emulation/block.h"
#include "kernels/cuda/emulation/order.h"
#include "kernels/cuda/emulation/stream.h"

// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): the names are CUDA's.

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// All shared variables of a program stand in one section, which block.cc fills with NaN.
#define __shared__ static __attribute__((section("dsm_shared")))

struct uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
inline int2 make_int2(int x, int y) {
  return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

inline constexpr int warpSize = 32;
inline int dsm_lane() {
  return static_cast<int>(threadIdx.x % 32);  // blocks are one row of threads
}

inline void __syncthreads() {
  dsm::emulation::barrier(0);
}
inline int __syncthreads_count(int predicate) {
  return dsm::emulation::barrier(predicate != 0 ? 1 : 0);
}
inline int __syncthreads_or(int predicate) {
  return __syncthreads_count(predicate) > 0 ? 1 : 0;
}
inline int __syncthreads_and(int predicate) {
  return __syncthreads_count(predicate) == static_cast<int>(blockDim.x) ? 1 : 0;
}
inline void __syncwarp(unsigned lanes = 0xffffffffU) {
  dsm::emulation::meet(lanes, dsm::emulation::only_wait, nullptr);
}
inline void __threadfence() {
  dsm::emulation::tell(&dsm::emulation::Races::fence, dsm::emulation::Scope::kDevice);
}
inline void __threadfence_block() {
  dsm::emulation::tell(&dsm::emulation::Races::fence, dsm::emulation::Scope::kBlock);
}
inline void __threadfence_system() {
  dsm::emulation::tell(&dsm::emulation::Races::fence, dsm::emulation::Scope::kDevice);
}
// Past the first cache.
template <class T>
T __ldcg(const T* from) {
  return *from;
}
[[noreturn]] inline void __trap() {
  dsm::emulation::fail("__trap()");
}

namespace dsm::emulation {

// What lane `from` gives; NaN, or ones in all bits, from a lane that takes no part.
template <class T>
T shuffle(unsigned lanes, T value, int from) {
  struct Mine {
    T value;
    int from;
    T result;
  };
  Mine mine{value, from, value};
  meet(
      lanes,
      [](void* const(&all)[32], unsigned taking_part) {
        const Unwatched lanes_own;
        for (unsigned lane = 0; lane < 32; ++lane) {
          if ((taking_part >> lane & 1U) == 0) continue;
          auto& to = *static_cast<Mine*>(all[lane]);
          if ((taking_part >> to.from & 1U) != 0) {
            to.result = static_cast<const Mine*>(all[to.from])->value;
          } else {
            std::memset(&to.result, 0xff, sizeof to.result);
          }
        }
      },
      &mine);
  return mine.result;
}

// A thread runs until it waits, so nothing comes between.
template <class T, class Next>
DSM_INLINED T update(T* at, const Next& next) {
  tell_here(&Races::strong, at, sizeof *at, Strong::kUpdate);
  const Unwatched whole;
  return std::exchange(*at, static_cast<T>(next(*at)));
}

}  // namespace dsm::emulation

template <class T>
T __shfl_sync(unsigned lanes, T value, int from, int width = 32) {
  return dsm::emulation::shuffle(lanes, value, (dsm_lane() & -width) | (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned lanes, T value, int bits, int width = 32) {
  const int lane = dsm_lane();
  const int from = lane ^ bits;
  return dsm::emulation::shuffle(lanes, value, from < (lane & -width) + width ? from : lane);
}
template <class T>
T __shfl_down_sync(unsigned lanes, T value, unsigned by, int width = 32) {
  const int lane = dsm_lane();
  const int from = lane + static_cast<int>(by);
  return dsm::emulation::shuffle(lanes, value, from < (lane & -width) + width ? from : lane);
}
template <class T>
T __shfl_up_sync(unsigned lanes, T value, unsigned by, int width = 32) {
  const int lane = dsm_lane();
  const int from = lane - static_cast<int>(by);
  return dsm::emulation::shuffle(lanes, value, from >= (lane & -width) ? from : lane);
}
inline unsigned __ballot_sync(unsigned lanes, int predicate) {
  struct Mine {
    bool predicate;
    unsigned result;
  };
  Mine mine{predicate != 0, 0};
  dsm::emulation::meet(
      lanes,
      [](void* const(&all)[32], unsigned taking_part) {
        const dsm::emulation::Unwatched lanes_own;
        unsigned votes = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
          if ((taking_part >> lane & 1U) == 0) continue;
          if (static_cast<const Mine*>(all[lane])->predicate) votes |= 1U << lane;
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
          if ((taking_part >> lane & 1U) != 0) static_cast<Mine*>(all[lane])->result = votes;
        }
      },
      &mine);
  return mine.result;
}
inline int __any_sync(unsigned lanes, int predicate) {
  return __ballot_sync(lanes, predicate) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned lanes, int predicate) {
  return __ballot_sync(lanes, predicate == 0 ? 1 : 0) == 0 ? 1 : 0;
}

template <class T>
DSM_INLINED T atomicAdd(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return was + value; });
}
template <class T>
DSM_INLINED T atomicSub(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return was - value; });
}
template <class T>
DSM_INLINED T atomicMax(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return std::max(was, value); });
}
template <class T>
DSM_INLINED T atomicMin(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return std::min(was, value); });
}
template <class T>
DSM_INLINED T atomicOr(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return was | value; });
}
template <class T>
DSM_INLINED T atomicAnd(T* at, T value) {
  return dsm::emulation::update(at, [&](T was) { return was & value; });
}
template <class T>
DSM_INLINED T atomicExch(T* at, T value) {
  return dsm::emulation::update(at, [&](T) { return value; });
}
template <class T>
DSM_INLINED T atomicCAS(T* at, T wanted, T value) {
  return dsm::emulation::update(at, [&](T was) { return was == wanted ? value : was; });
}

template <class T>
DSM_INLINED T __ldg(const T* from) {
  dsm::emulation::tell_here(&dsm::emulation::Races::access, from, sizeof *from,
                            dsm::emulation::kConstant);
  const dsm::emulation::Unwatched told;
  return *from;
}
inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline int __popc(unsigned bits) {
  return std::popcount(bits);
}
inline int __clz(int bits) {
  return std::countl_zero(static_cast<unsigned>(bits));
}
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float rsqrtf(float x) {
  return 1.0F / std::sqrt(x);
}
template <class T>
T min(T a, T b) {
  return std::min(a, b);
}
template <class T>
T max(T a, T b) {
  return std::max(a, b);
}

template <class... Params>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Params...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

template <class... Params>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(Params...)) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  return dsm::emulation::launch(
      *config, reinterpret_cast<const void*>(kernel),
      [kernel, params = std::tuple<Params...>(std::forward<Args>(args)...)] {
        std::apply(kernel, params);
      });
}

// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
