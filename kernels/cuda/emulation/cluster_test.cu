// Blocks that run side by side: they meet, write into each other's shared memory, and say when they
// have read.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/device.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kBlocks = 2;
constexpr int kThreads = 64;
constexpr int kTurns = 5;
constexpr int kFloats = 32;  // of a block's share in a turn

struct Given {
  int forgets = 0;  // 1: to say that it has read; 2: to wait for that
};

// Each block copies its share of every turn into both; all threads add up what has come.
__global__ void exchange_kernel(float* sums, const float* values, Given given) {
  auto* const here = dynamic_shared<float>();
  auto* const filled = reinterpret_cast<std::uint64_t*>(here + kBlocks * kFloats);
  auto* const read = filled + 1;
  const int block = block_of_cluster();
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    copies_begin(filled, 1);
    arrivals_begin(read, kBlocks * (kThreads - 1));
  }
  cluster_barrier();
  constexpr int kBytes = kFloats * static_cast<int>(sizeof(float));
  const auto cluster = static_cast<int>(blockIdx.x);
  float sum = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    if (thread == 0) {
      if (turn > 0 && given.forgets != 2) arrivals_wait(read, turn - 1);
      copies_expect(filled, kBlocks * kBytes);
      copy_bytes_to_cluster(here + block * kFloats,
                            values + ((cluster * kTurns + turn) * kBlocks + block) * kFloats,
                            kBytes, filled, kBlocks);
      continue;
    }
    copies_wait(filled, turn);
    for (int i = 0; i < kBlocks * kFloats; ++i) sum += here[i];
    if (given.forgets == 1) continue;
    for (int b = 0; b < kBlocks; ++b) arrive(read, b);
  }
  cluster_barrier();
  sums[(cluster * kBlocks + block) * kThreads + thread] = sum;
}

constexpr int kClusters = 3;

std::vector<float> exchange(Given given) {
  std::vector<float> values;
  for (int i = 0; i < kClusters * kTurns * kBlocks * kFloats; ++i) {
    values.push_back(static_cast<float>(i));
  }
  std::vector<float> sums(static_cast<std::size_t>(kClusters * kBlocks * kThreads));
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, (values.size() + sums.size()) * sizeof(float)), cudaSuccess);
  auto* const there = static_cast<float*>(memory);
  cudaMemcpyAsync(there, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice,
                  nullptr);
  float* const out = there + values.size();
  launch_clusters(kBlocks, exchange_kernel, dim3(kClusters, kBlocks), kThreads, 1024, nullptr, out,
                  there, given);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  cudaMemcpyAsync(sums.data(), out, sums.size() * sizeof(float), cudaMemcpyDeviceToHost, nullptr);
  cudaStreamSynchronize(nullptr);
  cudaFree(memory);
  return sums;
}

TEST(EmulationCluster, BlocksCopyIntoEachOther) {
  const auto sums = exchange({});
  constexpr int kOfCluster = kTurns * kBlocks * kFloats;
  for (int cluster = 0; cluster < kClusters; ++cluster) {
    float sum = 0;
    for (int i = 0; i < kOfCluster; ++i) sum += static_cast<float>(cluster * kOfCluster + i);
    for (int i = 0; i < kBlocks * kThreads; ++i) {
      const bool copies = i % kThreads == 0;
      EXPECT_EQ(sums[static_cast<std::size_t>(cluster * kBlocks * kThreads + i)], copies ? 0 : sum);
    }
  }
}

TEST(EmulationClusterDeathTest, WhoeverIsForgottenIsNamed) {
  EXPECT_DEATH(exchange({.forgets = 1}), "exchange_kernel.*wait for what nobody brings about");
  EXPECT_DEATH(exchange({.forgets = 2}), "nobody has waited for the last one");
}

__global__ void sharing_kernel(bool shares) {
  __shared__ int number;
  if (shares && threadIdx.x == 0) number = block_of_cluster();
  __syncthreads();
  if (shares && number < 0) __trap();
}
cudaError_t launch_shared(unsigned blocks, bool shares) {
  launch_clusters(kBlocks, sharing_kernel, dim3(1, blocks), kThreads, 0, nullptr, shares);
  cudaStreamSynchronize(nullptr);
  return cudaGetLastError();
}

TEST(EmulationClusterDeathTest, SharedVariablesAreNotABlocksOwn) {
  EXPECT_DEATH(launch_shared(kBlocks, true), "it has shared variables|a race");
}

TEST(EmulationCluster, AGridIsWholeClusters) {
  EXPECT_EQ(launch_shared(kBlocks, false), cudaSuccess);
  EXPECT_EQ(launch_shared(kBlocks + 1, false), cudaErrorInvalidConfiguration);
}

}  // namespace
}  // namespace dsm::kernels::cuda
