// A backend that sleeps on the device that is there: the memory is free for others meanwhile, and
// everything stands where it stood afterwards, but caches, which are empty.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <new>
#include <vector>

#include "base/device_error.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/gpu.h"

namespace dsm::device {
namespace {

constexpr std::size_t kCount = std::size_t{1} << 20;  // floats
constexpr std::size_t kBytes = kCount * sizeof(float);

Device here() {
  return *find_device("auto");
}

// Of the device: on a CPU what the process holds, negative.
std::int64_t free_bytes() {
  if (here() == Device::kCuda) return free_gpu_bytes();
  std::int64_t all = 0;
  std::int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return -resident * ::sysconf(_SC_PAGESIZE);
}

class SleepBackend : public BackendTest {
 protected:
  SleepBackend()
      : backend_(*(device_.backend = make_backend({.device = here(), .sleeps = true}))) {}

  Backend& backend_;
};

TEST_F(SleepBackend, KeepsDataAndForgetsCachesAtTheSameAddresses) {
  const std::vector<float> values = random_floats(kCount, 1);
  const float* data = device_.put(values);
  auto* cache = allocate_cache<float>(backend_, kCount);
  EXPECT_EQ(device_.get(cache, kCount), std::vector<float>(kCount, 0));
  backend_.write(cache, values.data(), kBytes);
  for (int night = 0; night < 2; ++night) {
    backend_.sleep();
    backend_.wake();
    EXPECT_EQ(device_.get(data, kCount), values) << night;
    EXPECT_EQ(device_.get(cache, kCount), std::vector<float>(kCount, 0)) << night;
    backend_.write(cache, values.data(), kBytes);
    EXPECT_EQ(device_.get(cache, kCount), values) << night;
  }
}

TEST_F(SleepBackend, GivesTheDevicesMemoryBack) {
  device_.put(random_floats(kCount, 1));
  auto* cache = allocate_cache<float>(backend_, 8 * kCount);
  const std::vector<float> values = random_floats(8 * kCount, 2);
  backend_.write(cache, values.data(), 8 * kBytes);
  const std::int64_t awake = free_bytes();
  backend_.sleep();
  const std::int64_t asleep = free_bytes();
  // On a CPU data stays.
  const std::size_t given = (here() == Device::kCuda ? 9 : 8) * kBytes;
  EXPECT_GE(asleep - awake, static_cast<std::int64_t>(given) - (std::int64_t{1} << 20));
  backend_.wake();
  if (here() == Device::kCuda) {
    // A GPU's pages are of 2 MiB.
    EXPECT_NEAR(static_cast<double>(free_bytes()), static_cast<double>(awake), 4 << 20);
  }
  EXPECT_EQ(device_.get(cache, 8), std::vector<float>(8, 0));
}

// What was recorded before is not repeated with memory that has gone.
TEST_F(SleepBackend, ComputesTheSameAfterwards) {
  constexpr int kRows = 3;
  constexpr int kWidth = 256;
  const float* x = device_.put(random_floats(size(kRows) * kWidth, 1));
  const float* weight = device_.put(random_floats(kWidth, 2));
  auto* y = allocate<float>(backend_, size(kRows) * kWidth);
  std::vector<std::int32_t> rows = {2, 0, 1};
  const List list{rows.data(), rows.size() * sizeof rows[0]};
  const auto step = [&] {
    backend_.stage({&list, 1}, {});
    backend_.repeat({.tokens = kRows, .positions = 1024}, [&] {
      backend_.rms_norm({.x = x,
                         .ldx = kWidth,
                         .row_index = rows.data(),
                         .weight = weight,
                         .y = y,
                         .ldy = kWidth,
                         .rows = kRows,
                         .width = kWidth,
                         .eps = 1e-6F});
    });
    return device_.get(y, size(kRows) * kWidth);
  };
  const std::vector<float> wanted = step();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(step(), wanted);
  backend_.sleep();
  backend_.wake();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(step(), wanted);
}

TEST_F(BackendTest, MustBeMadeForSleepOnAGpu) {
  if (here() != Device::kCuda) GTEST_SKIP() << "a CPU's memory can always be given back";
  const std::vector<float> values = random_floats(kCount, 1);
  auto* cache = allocate_cache<float>(*device_.backend, kCount);
  device_.backend->write(cache, values.data(), kBytes);
  EXPECT_THROW(device_.backend->sleep(), DeviceError);
  EXPECT_EQ(device_.get(cache, kCount), values) << "nothing has changed";
}

TEST_F(SleepBackend, MayEndWhileItSleeps) {
  device_.put(random_floats(kCount, 1));
  allocate_cache<float>(backend_, kCount);
  backend_.sleep();
  device_.backend.reset();
}

}  // namespace
}  // namespace dsm::device
