// NCCL itself, with one rank: its library, its state machine without blocking, its operations on a
// stream. What more than one rank needs, the fake shows (worker/comm/nccl_test.cc).
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "worker/comm/nccl_comm.h"
#include "worker/comm/thread_comm.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {
namespace {

constexpr std::size_t kCount = 7168;

class Nccl : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto api = comm::load_nccl();
    if (!api) GTEST_SKIP() << api.error().message;
    host_ = std::move(comm::make_thread_communicators(1).front());
    comm_.emplace(**api, *host_, clock_, Millis(60'000));
    for (std::size_t i = 0; i < kCount; ++i) values_.push_back(static_cast<float>(i) - 100);
    from_ = device_memory(kCount * sizeof(float));
    to_ = device_memory(kCount * sizeof(float));
    check(cudaMemcpy(from_.get(), values_.data(), kCount * sizeof(float), cudaMemcpyDefault),
          "copy");
    check(cudaDeviceSynchronize(),
          "copy");  // which may still be on its way when cudaMemcpy returns
  }
  std::vector<float> result() {
    comm_->wait([&] { return stream_.done(); }, "finish");
    std::vector<float> got(kCount);
    check(cudaMemcpy(got.data(), to_.get(), kCount * sizeof(float), cudaMemcpyDefault), "copy");
    return got;
  }
  const float* from() const { return static_cast<const float*>(from_.get()); }
  float* to() const { return static_cast<float*>(to_.get()); }

  SystemClock clock_;
  Stream stream_;
  std::unique_ptr<comm::Communicator> host_;
  std::optional<comm::NcclComm> comm_;
  std::vector<float> values_;
  DeviceMemory from_;
  DeviceMemory to_;
};

TEST_F(Nccl, GathersTheOnlyPart) {
  comm_->all_gather(from(), to(), kCount, stream_.get());
  EXPECT_EQ(result(), values_);
}

TEST_F(Nccl, AddsTheOnlyPart) {
  comm_->all_reduce(from(), to(), kCount, stream_.get());
  EXPECT_EQ(result(), values_);
}

TEST_F(Nccl, IsOverWhenTheHostsCommunicatorIsAborted) {
  host_->abort();
  EXPECT_THROW(comm_->wait([] { return false; }, "finish"), comm::CommError);
  EXPECT_THROW(comm_->all_reduce(from(), to(), kCount, stream_.get()), comm::CommError);
}

}  // namespace
}  // namespace dsm::device
