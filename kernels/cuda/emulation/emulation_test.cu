// The emulated GPU computes what a GPU does, and finds out what a kernel may not do.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kBoundsAreWatched = true;
#else
constexpr bool kBoundsAreWatched = false;
#endif

template <class T>
T* on_device(const std::vector<T>& values) {
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, values.size() * sizeof(T)), cudaSuccess);
  cudaMemcpyAsync(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice,
                  nullptr);
  cudaStreamSynchronize(nullptr);
  return static_cast<T*>(memory);
}

// Takes the memory back.
template <class T>
std::vector<T> from_device(T* memory, std::size_t count) {
  std::vector<T> values(count);
  cudaMemcpyAsync(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost, nullptr);
  cudaStreamSynchronize(nullptr);
  cudaFree(memory);
  return values;
}

template <class T, class... Params, class... Args>
std::vector<T> run(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes,
                   const std::vector<T>& values, const Args&... args) {
  T* memory = on_device(values);
  launch(kernel, grid, threads, shared_bytes, nullptr, memory, args...);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  return from_device(memory, values.size());
}

constexpr int kThreads = 256;

std::vector<int> numbers(int count) {
  std::vector<int> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// Reverses each block's values, in shared memory, with a barrier or without.
__global__ void reverse_kernel(int* values, bool waits) {
  __shared__ int block[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  int* mine = values + blockIdx.x * kThreads;
  block[thread] = mine[thread];
  if (waits) __syncthreads();
  mine[thread] = block[kThreads - 1 - thread];
}

TEST(Emulation, ThreadsOfABlockMeetAtABarrier) {
  const auto reversed = run(reverse_kernel, 3, kThreads, 0, numbers(3 * kThreads), true);
  for (int i = 0; i < 3 * kThreads; ++i) {
    const int block = i / kThreads;
    EXPECT_EQ(reversed[static_cast<std::size_t>(i)],
              block * kThreads + kThreads - 1 - i % kThreads);
  }
}

TEST(Emulation, AMissingBarrierShows) {
  const auto values = numbers(kThreads);
  EXPECT_NE(run(reverse_kernel, 1, kThreads, 0, values, false),
            run(reverse_kernel, 1, kThreads, 0, values, true));
}

__global__ void diverging_kernel(int* values) {
  if (threadIdx.x < 100) {
    values[threadIdx.x] = 1;
    __syncthreads();
  }
}

TEST(EmulationDeathTest, ABarrierThatSomeThreadsDoNotReachNamesTheKernel) {
  EXPECT_DEATH(run(diverging_kernel, 1, kThreads, 0, numbers(kThreads)),
               "diverging_kernel.*of 256 100 stand at a barrier of the block.*156 have ended");
}

__global__ void two_barriers_kernel(int* values) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  values[threadIdx.x] = 0;
  if (threadIdx.x == 40) __shfl_sync(0xffffffffU, 1, 0);
}

TEST(EmulationDeathTest, AShuffleThatSomeLanesDoNotReachNamesTheKernel) {
  EXPECT_DEATH(run(two_barriers_kernel, 1, 64, 0, numbers(64)), "two_barriers_kernel.*warp");
}

__global__ void past_the_end_kernel(int* values, int at) {
  if (threadIdx.x == 0) values[0] = values[at];
}
__global__ void past_shared_kernel(int* values, int at) {
  __shared__ int block[kThreads];
  block[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x] = block[at];
}
__global__ void past_dynamic_kernel(int* values, int at) {
  int* block = dynamic_shared<int>();
  block[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x] = block[at];
}

TEST(EmulationDeathTest, AReadOutsideOfMemoryIsSeen) {
  if (!kBoundsAreWatched) GTEST_SKIP() << "built without AddressSanitizer";
  const auto values = numbers(kThreads);
  EXPECT_EQ(run(past_the_end_kernel, 1, 32, 0, values, kThreads - 1)[0], kThreads - 1);
  EXPECT_DEATH(run(past_the_end_kernel, 1, 32, 0, values, kThreads), "past_the_end_kernel");
  // Built with UBSan as well: one or the other is first.
  EXPECT_DEATH(run(past_shared_kernel, 1, kThreads, 0, values, kThreads),
               "out of bounds|past_shared_kernel");
  EXPECT_DEATH(run(past_dynamic_kernel, 1, kThreads, kThreads * 4, values, kThreads),
               "past_dynamic_kernel");
}

TEST(EmulationDeathTest, TheHostDoesNotTouchMemoryOfTheDevice) {
  if (!kBoundsAreWatched) GTEST_SKIP() << "built without AddressSanitizer";
  const int* memory = on_device(numbers(4));
  EXPECT_DEATH(std::printf("%d\n", memory[1]), "use-after-poison");
  EXPECT_EQ(from_device(const_cast<int*>(memory), 4), numbers(4));
}

__global__ void unwritten_kernel(float* values) {
  __shared__ float block[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  values[thread] = block[thread];
  block[thread] = 1;
}
__global__ void unwritten_dynamic_kernel(float* values) {
  const int thread = static_cast<int>(threadIdx.x);
  values[thread] = dynamic_shared<float>()[thread];
  dynamic_shared<float>()[thread] = 1;
}

TEST(Emulation, MemoryThatNobodyHasWrittenIsNan) {
  // The second block finds nothing of the first one's.
  const std::vector<float> zeros(kThreads);
  for (const float value : run(unwritten_kernel, 2, kThreads, 0, zeros)) {
    EXPECT_TRUE(std::isnan(value));
  }
  for (const float value : run(unwritten_dynamic_kernel, 2, kThreads, kThreads * 4, zeros)) {
    EXPECT_TRUE(std::isnan(value));
  }
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 64), cudaSuccess);
  for (const float value : from_device(static_cast<float*>(memory), 16)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

// Its shared variables would not be counted by launch().
__global__ void two_kinds_of_shared_kernel(int* values) {
  __shared__ int first;
  if (threadIdx.x == 0) first = values[0];
  __syncthreads();
  dynamic_shared<int>()[threadIdx.x] = first;
  values[threadIdx.x] = dynamic_shared<int>()[threadIdx.x];
}

TEST(EmulationDeathTest, SharedVariablesBesideDynamicSharedMemoryAreSeen) {
  EXPECT_DEATH(run(two_kinds_of_shared_kernel, 1, 32, 128, numbers(32)),
               "two_kinds_of_shared_kernel.*shared variables beside dynamic shared memory");
}

// Every kind of exchange in a warp, a column of 32 for each.
__global__ void lanes_kernel(int* values) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned all = 0xffffffffU;
  const int got[] = {
      __shfl_sync(all, lane, 5),
      __shfl_xor_sync(all, lane, 3),
      __shfl_down_sync(all, lane, 2, 16),
      __shfl_up_sync(all, lane, 2),
      static_cast<int>(__ballot_sync(all, lane % 2)),
      __any_sync(all, lane == 7),
      __all_sync(all, lane == 7),
      // Halves of the warp for themselves.
      __shfl_sync(lane < 16 ? 0xffffU : 0xffff0000U, lane, lane < 16 ? 1 : 17),
  };
  for (int i = 0; i < 8; ++i) values[i * 32 + lane] = got[i];
}

TEST(Emulation, LanesOfAWarpExchangeValues) {
  const auto got = run(lanes_kernel, 1, 32, 0, std::vector<int>(8 * 32));
  for (int lane = 0; lane < 32; ++lane) {
    const auto of = [&](int i) { return got[static_cast<std::size_t>(i * 32 + lane)]; };
    EXPECT_EQ(of(0), 5);
    EXPECT_EQ(of(1), lane ^ 3);
    EXPECT_EQ(of(2), lane % 16 < 14 ? lane + 2 : lane);
    EXPECT_EQ(of(3), lane < 2 ? lane : lane - 2);
    EXPECT_EQ(static_cast<unsigned>(of(4)), 0xaaaaaaaaU);
    EXPECT_EQ(of(5), 1);
    EXPECT_EQ(of(6), 0);
    EXPECT_EQ(of(7), lane < 16 ? 1 : 17);
  }
}

__global__ void count_kernel(int* values) {
  atomicAdd(values, 1);
  atomicMax(values + 1, static_cast<int>(threadIdx.x + blockIdx.x));
  const int odd = __syncthreads_count(static_cast<int>(threadIdx.x % 2));
  if (threadIdx.x == 0) atomicAdd(values + 2, odd);
}

TEST(Emulation, AtomicsAndCountsAddUp) {
  EXPECT_EQ(run(count_kernel, dim3(4, 2), 64, 0, std::vector<int>(3)),
            (std::vector<int>{512, 66, 256}));
}

// Each thread copies four values ahead of time and takes them after waiting, or too early.
__global__ void copy_kernel(float* values, bool waits) {
  const int thread = static_cast<int>(threadIdx.x);
  auto* mine = dynamic_shared<float>() + thread * 8;
  cp_async_16(mine, values + thread * 4);
  cp_async_commit();
  cp_async_16(mine + 4, values, false);
  cp_async_commit();
  if (waits) {
    cp_async_wait<1>();
  }
  const float sum = mine[0] + mine[1] + mine[2] + mine[3];
  cp_async_wait<0>();
  values[thread * 4] = sum + mine[4];
}

TEST(Emulation, CopiesAreThereOnceTheyAreWaitedFor) {
  const std::vector<float> ones(128, 1.0F);
  EXPECT_EQ(run(copy_kernel, 1, 32, 1024, ones, true)[4], 4.0F);
  EXPECT_TRUE(std::isnan(run(copy_kernel, 1, 32, 1024, ones, false)[4]));
}

// D = A B on one warp, from A [16, k] and B [k, 8] in FP32 whose values the type holds. PTX:
// registers of 4g + q as ptx.cuh says.
__global__ void mma_kernel(float* out, const float* a, const float* b, bool fp8) {
  const int g = static_cast<int>(threadIdx.x) / 4;
  const int q = static_cast<int>(threadIdx.x) % 4;
  const int packed = fp8 ? 4 : 2;
  const int k = 8 * packed;
  const auto bits = [&](float x) {
    if (!fp8) return __float_as_uint(x) >> 16;
    // A power of two or zero in E4M3.
    return x == 0.0F ? 0U : ((__float_as_uint(x) >> 23 & 255U) - 120U) << 3 | (x < 0 ? 128U : 0U);
  };
  std::uint32_t of_a[4] = {};
  std::uint32_t of_b[2] = {};
  for (int i = 0; i < packed; ++i) {
    for (int r = 0; r < 4; ++r) {
      const int row = g + r % 2 * 8;
      of_a[r] |= bits(a[row * k + q * packed + r / 2 * 4 * packed + i]) << (32 / packed * i);
    }
    for (int r = 0; r < 2; ++r) {
      of_b[r] |= bits(b[(q * packed + r * 4 * packed + i) * 8 + g]) << (32 / packed * i);
    }
  }
  float d[4] = {};
  if (fp8) {
    mma_e4m3(d, of_a, of_b);
  } else {
    mma_bf16(d, of_a, of_b);
  }
  for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + q * 2 + i % 2] = d[i];
}

TEST(Emulation, TensorCoresMultiply) {
  for (const bool fp8 : {false, true}) {
    const int k = fp8 ? 32 : 16;
    std::vector<float> a;
    std::vector<float> b;
    for (int i = 0; i < 16 * k; ++i) a.push_back(std::ldexp(i % 3 == 0 ? -1.0F : 1.0F, i * 7 % 5));
    for (int i = 0; i < 8 * k; ++i) b.push_back(i % 11 == 0 ? 0.0F : std::ldexp(1.0F, i * 5 % 7));
    const float* a_there = on_device(a);
    const float* b_there = on_device(b);
    const auto d = run(mma_kernel, 1, 32, 0, std::vector<float>(128), a_there, b_there, fp8);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = 0;  // all values are whole, so the order does not matter
        for (int i = 0; i < k; ++i) {
          sum += a[static_cast<std::size_t>(row * k + i)] *
                 b[static_cast<std::size_t>(i * 8 + column)];
        }
        EXPECT_EQ(d[static_cast<std::size_t>(row * 8 + column)], sum) << row << ", " << column;
      }
    }
    cudaFree(const_cast<float*>(a_there));
    cudaFree(const_cast<float*>(b_there));
  }
}

__global__ void empty_kernel() {}

TEST(Emulation, ALaunchThatNoGpuTakesIsAnError) {
  const auto error_of = [](dim3 grid, int threads, int shared_bytes) {
    launch(empty_kernel, grid, threads, shared_bytes, nullptr);
    return cudaGetLastError();
  };
  EXPECT_EQ(error_of(dim3(2, 2, 2), 1024, 227 << 10), cudaSuccess);
  EXPECT_EQ(error_of(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(error_of(0, 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(error_of(1, 1056, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(error_of(1, 32, 228 << 10), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace dsm::kernels::cuda
