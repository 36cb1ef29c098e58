// What is captured is done when its graph is launched, as often as that, and not before; who waits
// or allocates meanwhile spoils it.
#include "kernels/cuda/emulation/graph.h"

#include <gtest/gtest.h>

#include <vector>

namespace dsm::emulation {
namespace {

class GraphTest : public testing::Test {
 protected:
  GraphTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~GraphTest() override { cudaStreamDestroy(stream_); }
  void log(int what) {
    enqueue(stream_, [this, what] { done_.push_back(what); });
  }

  cudaStream_t stream_ = nullptr;
  std::vector<int> done_;
};

TEST_F(GraphTest, CapturedWorkIsDoneAsOftenAsItsGraphIsLaunched) {
  log(1);
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  log(2);
  log(3);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaStreamSynchronize(stream_);
  EXPECT_EQ(done_, std::vector<int>{1});
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  cudaGraphDestroy(graph);
  cudaGraphLaunch(executable, stream_);
  log(4);
  cudaGraphLaunch(executable, stream_);
  cudaGraphExecDestroy(executable);  // what is on the stream already is done all the same
  cudaStreamSynchronize(stream_);
  EXPECT_EQ(done_, (std::vector{1, 2, 3, 4, 2, 3}));
}

TEST_F(GraphTest, WaitingAndAllocatingSpoilACapture) {
  const auto spoilt_by = [&](auto&& call) {
    cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
    cudaGetLastError();
  };
  void* memory = nullptr;
  spoilt_by([&] { return cudaStreamSynchronize(stream_); });
  spoilt_by([&] { return cudaMalloc(&memory, 16); });
  spoilt_by([&] { return cudaHostAlloc(&memory, 16, cudaHostAllocMapped); });
  EXPECT_EQ(cudaMalloc(&memory, 16), cudaSuccess);
  cudaFree(memory);
}

}  // namespace
}  // namespace dsm::emulation
