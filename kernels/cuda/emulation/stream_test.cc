// Work on streams is done in order, when the host waits for it, across streams as events say, and
// from several host threads.
#include "kernels/cuda/emulation/stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace dsm::emulation {
namespace {

class StreamTest : public testing::Test {
 protected:
  StreamTest() {
    cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking);
    cudaEventCreate(&event_);
  }
  ~StreamTest() override {
    cudaStreamDestroy(first_);
    cudaStreamDestroy(second_);
    cudaEventDestroy(event_);
  }
  void log(cudaStream_t stream, int what) {
    enqueue(stream, [this, what] { done_.push_back(what); });
  }

  cudaStream_t first_ = nullptr;
  cudaStream_t second_ = nullptr;
  cudaEvent_t event_ = nullptr;
  std::vector<int> done_;
};

TEST_F(StreamTest, WorkIsDoneInOrderWhenTheHostWaits) {
  log(first_, 1);
  log(second_, 2);
  log(first_, 3);
  EXPECT_EQ(done_, std::vector<int>{});
  cudaStreamSynchronize(first_);
  EXPECT_EQ(done_, (std::vector{1, 3}));
  cudaDeviceSynchronize();
  EXPECT_EQ(done_, (std::vector{1, 3, 2}));
}

TEST_F(StreamTest, WorkThatIsNotReadyIsWaitedForButNotByWhoAsks) {
  std::atomic<bool> ready = false;
  log(first_, 1);
  enqueue_when(first_, [&] { return ready.load(); }, [this] { done_.push_back(2); });
  cudaEventRecord(event_, first_);
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
  EXPECT_EQ(done_, std::vector{1});
  const std::jthread other([&] { ready = true; });
  cudaStreamSynchronize(first_);
  EXPECT_EQ(done_, (std::vector{1, 2}));
  EXPECT_EQ(cudaStreamQuery(first_), cudaSuccess);
}

TEST_F(StreamTest, AStreamWaitsForAnEventAsItWasRecordedThen) {
  log(first_, 1);
  cudaEventRecord(event_, first_);
  log(first_, 2);
  cudaStreamWaitEvent(second_, event_);
  cudaEventRecord(event_, first_);  // too late for the second stream
  log(second_, 3);
  cudaStreamSynchronize(second_);
  EXPECT_EQ(done_, (std::vector{1, 3}));
  cudaEventSynchronize(event_);
  EXPECT_EQ(done_, (std::vector{1, 3, 2}));
}

TEST_F(StreamTest, TimeBetweenEventsIsThatOfTheWork) {
  cudaEvent_t end = nullptr;
  cudaEventCreate(&end);
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event_, end), cudaErrorInvalidValue);
  cudaEventRecord(event_, first_);
  log(first_, 1);
  cudaEventRecord(end, first_);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event_, end), cudaErrorNotReady);
  cudaEventSynchronize(end);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event_, end), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
  cudaGetLastError();
  cudaEventDestroy(end);
}

TEST_F(StreamTest, HostThreadsThatWaitForTheSameWorkDoItOnce) {
  for (int i = 0; i < 100; ++i) log(first_, i);
  cudaEventRecord(event_, first_);
  cudaStreamWaitEvent(second_, event_);
  std::thread other([&] { cudaStreamSynchronize(second_); });
  cudaStreamSynchronize(first_);
  other.join();
  std::vector<int> wanted(100);
  for (int i = 0; i < 100; ++i) wanted[static_cast<std::size_t>(i)] = i;
  EXPECT_EQ(done_, wanted);
}

TEST(Copies, AreCheckedWhenTheyAreDone) {
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 8), cudaSuccess);
  const std::vector<char> from(16);
  const auto copy = [&](void* to, std::size_t bytes, cudaMemcpyKind kind) {
    cudaMemcpyAsync(to, from.data(), bytes, kind, nullptr);
    cudaStreamSynchronize(nullptr);
  };
  EXPECT_DEATH(copy(memory, 9, cudaMemcpyDefault), "past the end of device memory: 9 of 8");
  EXPECT_DEATH(copy(memory, 8, cudaMemcpyDeviceToHost), "kind");
  copy(memory, 8, cudaMemcpyHostToDevice);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST(Copies, OfMemoryThatIsGoneAreSeen) {
#if !defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "built without AddressSanitizer";
#endif
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 8), cudaSuccess);
  const auto copy_from_what_goes = [&] {
    auto from = std::make_unique<double>(1);
    cudaMemcpyAsync(memory, from.get(), 8, cudaMemcpyHostToDevice, nullptr);
    from.reset();
    cudaStreamSynchronize(nullptr);
  };
  EXPECT_DEATH(copy_from_what_goes(), "a copy from of memory that is not there");
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST(Memory, EndsAndIsAnErrorThen) {
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, std::size_t{1} << 40), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaFree(static_cast<void*>(&memory)), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace dsm::emulation
