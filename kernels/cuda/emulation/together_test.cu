// A whole grid whose blocks run side by side and wait for each other.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/grid_barrier.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kTurns = 4;

// In each turn a block adds up what all had in the turn before. `leaves`: the last does not come to
// the last barrier.
__global__ void add_up_kernel(float* values, std::uint32_t* word, bool leaves) {
  GridBarrier barrier(word);
  const int blocks = static_cast<int>(gridDim.y);
  const int block = static_cast<int>(blockIdx.y);
  for (int turn = 1; turn < kTurns; ++turn) {
    float sum = 0;
    for (int b = 0; b < blocks; ++b) sum += values[(turn - 1) * blocks + b];
    if (threadIdx.x == 0) values[turn * blocks + block] = sum;
    if (leaves && turn + 1 == kTurns && block + 1 == blocks) return;
    barrier.arrive();
    barrier.wait();
  }
}

class Together : public testing::Test {
 protected:
  void SetUp() override {
    void* memory = nullptr;
    ASSERT_EQ(cudaMalloc(&memory, kBytes), cudaSuccess);
    cudaMemsetAsync(memory, 0, kBytes, nullptr);
    word_ = static_cast<std::uint32_t*>(memory);
    values_ = reinterpret_cast<float*>(word_ + 4);
  }
  void TearDown() override {
    cudaStreamSynchronize(nullptr);
    cudaFree(word_);
  }

  cudaError_t start(int blocks, bool leaves = false) {
    const std::vector<float> ones(static_cast<std::size_t>(blocks), 1.0F);
    cudaMemcpyAsync(values_, ones.data(), ones.size() * sizeof(float), cudaMemcpyHostToDevice,
                    nullptr);
    launch_together(blocks, add_up_kernel, kThreads, 0, nullptr, values_, word_, leaves);
    cudaStreamSynchronize(nullptr);
    return cudaGetLastError();
  }
  float last() {
    float value = 0;
    cudaMemcpyAsync(&value, values_ + (kTurns - 1) * kBlocks, sizeof value, cudaMemcpyDeviceToHost,
                    nullptr);
    cudaStreamSynchronize(nullptr);
    return value;
  }

  static constexpr int kBlocks = 16;
  static constexpr std::size_t kBytes = 4096;
  std::uint32_t* word_ = nullptr;
  float* values_ = nullptr;
};

TEST_F(Together, BlocksWaitForEachOther) {
  for (int launch = 0; launch < 2; ++launch) {  // the barrier's word is used again
    ASSERT_EQ(start(kBlocks), cudaSuccess);
    EXPECT_EQ(last(), kBlocks * kBlocks * kBlocks) << launch;
  }
}

TEST_F(Together, MoreThanTheDeviceHoldsAreRefused) {
  EXPECT_EQ(start(kBlocks + 1), cudaErrorInvalidConfiguration);
}

using TogetherDeathTest = Together;
TEST_F(TogetherDeathTest, WhoeverIsForgottenIsNamed) {
  EXPECT_DEATH(start(kBlocks, true), "add_up_kernel.*wait for what nobody brings about");
}

}  // namespace
}  // namespace dsm::kernels::cuda
