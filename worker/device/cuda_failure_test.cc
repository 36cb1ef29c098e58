// What comes of a GPU that fails, on the emulated one: DeviceError, which ends a rank's process,
// from whichever thread it was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "base/device_error.h"
#include "worker/comm/thread_comm.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_gpus.h"
#include "worker/device/devices.h"

namespace dsm::device {
namespace {

using ::testing::HasSubstr;

TEST(CudaFailure, OfAGpuThatIsNotThereIsNamed) {
  try {
    make_backend({.device = Device::kCuda, .gpu = 7});
    FAIL() << "there is one GPU";
  } catch (const DeviceError& e) {
    EXPECT_STREQ(e.what(), "GPU: cannot use it: invalid device ordinal");
  }
}

TEST(CudaFailure, InParallelWorkIsThrownByWhoAskedForIt) {
  const auto backend = make_cuda_backend(3, true, 0);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(backend->parallel(64,
                                   [](int i) {
                                     if (i % 16 == 5) throw DeviceError("a copy failed");
                                   }),
                 DeviceError);
  }
  EXPECT_NO_THROW(backend->parallel(64, [](int) {}));
}

TEST(CudaFailure, SumsOverRanksNeedThemToHaveBeenJoined) {
  const auto backend = make_cuda_backend(1, true, 0);
  const auto comms = comm::make_thread_communicators(2);
  EXPECT_THROW(backend->add_over_ranks(*comms.front(), {.count = 16}), std::logic_error);
}

TEST(CudaFailure, MoreRanksThanGpusAreRefusedBeforeTheyLoad) {
  EXPECT_EQ(cuda_capabilities(), std::vector<std::string>{"9.0"});
  EXPECT_TRUE(check_ranks(Device::kCuda, 1, 1));
  EXPECT_THAT(check_ranks(Device::kCuda, 2, 2).error().message,
              HasSubstr("2 ranks and sees 1 GPUs"));
}

}  // namespace
}  // namespace dsm::device
