// Which device is found by what is asked for, on a machine without a GPU.
#include "worker/device/devices.h"

#include <gtest/gtest.h>

namespace dsm::device {
namespace {

TEST(DevicesTest, TheCpuIsAlwaysThere) {
  EXPECT_EQ(find_device("cpu"), Device::kCpu);
  EXPECT_TRUE(make_backend({})->name().starts_with("cpu/"));
}

TEST(DevicesTest, AGpuThatIsAskedForIsFoundOrMissedByName) {
  const auto cuda = find_device("cuda");
  if (cuda) {
    EXPECT_EQ(find_device("auto"), Device::kCuda);
    return;
  }
  EXPECT_EQ(cuda.error().kind, ErrorKind::kInvalid);
  EXPECT_FALSE(cuda.error().message.empty());
  EXPECT_EQ(find_device("auto"), Device::kCpu);
}

}  // namespace
}  // namespace dsm::device
