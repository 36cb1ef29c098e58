// Kernels of several host threads that wait for each other.
#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 96;
constexpr int kBlocks = 3;
constexpr int kValues = kThreads * kBlocks;

// Each thread tells the other kernel's thread of its number what it is, waits for what that tells,
// and then for its own block.
__global__ void exchange_kernel(std::uint32_t* mine, const std::uint32_t* others,
                                std::uint32_t value, int* got) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  store_system(mine + i, value + i);
  std::uint32_t seen = 0;
  while ((seen = load_system(others + i)) == 0) let_others_run();
  const int all = __syncthreads_count(seen != 0 ? 1 : 0);
  got[i] = all == static_cast<int>(blockDim.x) ? static_cast<int>(seen) : -1;
}

class WaitingTest : public ::testing::Test {
 protected:
  WaitingTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~WaitingTest() override { cudaStreamDestroy(stream_); }

  template <class T>
  T* zeroed() {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, kValues * sizeof(T)), cudaSuccess);
    cudaMemsetAsync(memory, 0, kValues * sizeof(T), stream_);
    cudaStreamSynchronize(stream_);
    return static_cast<T*>(memory);
  }

  cudaStream_t stream_ = nullptr;
};

TEST_F(WaitingTest, KernelsOfTwoHostThreadsGoOnByTurns) {
  const std::array told{zeroed<std::uint32_t>(), zeroed<std::uint32_t>()};
  const std::array got{zeroed<int>(), zeroed<int>()};
  std::vector<std::thread> hosts;
  for (unsigned k = 0; k < 2; ++k) {
    hosts.emplace_back([&, k] {
      cudaStream_t stream = nullptr;
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      launch(exchange_kernel, kBlocks, kThreads, 0, stream, told[k], told[1 - k], 1000 * (k + 1),
             got[k]);
      cudaStreamSynchronize(stream);
      cudaStreamDestroy(stream);
    });
  }
  for (std::thread& host : hosts) host.join();
  for (unsigned k = 0; k < 2; ++k) {
    std::vector<int> values(kValues);
    cudaMemcpyAsync(values.data(), got[k], kValues * sizeof(int), cudaMemcpyDeviceToHost, stream_);
    cudaStreamSynchronize(stream_);
    for (int i = 0; i < kValues; ++i) {
      EXPECT_EQ(values[static_cast<std::size_t>(i)], static_cast<int>(1000 * (2 - k)) + i);
    }
    cudaFree(told[k]);
    cudaFree(got[k]);
  }
}

}  // namespace
}  // namespace dsm::kernels::cuda
