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

TEST(DevicesTest, EachRankNeedsAGpuOfItsOwn) {
  EXPECT_TRUE(check_gpus(2, 2));
  EXPECT_TRUE(check_gpus(8, 1));
  const auto missing = check_gpus(1, 4);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(missing.error().message.find("4 ranks and sees 1 GPUs"), std::string::npos)
      << missing.error().message;
  EXPECT_TRUE(check_ranks(Device::kCpu, 8, 8)) << "ranks share a processor";
}

TEST(DevicesTest, TheGpusOfAllRanksAreAlike) {
  const std::vector<std::string> gpus = {"9.0", "9.0", "8.0"};
  EXPECT_TRUE(check_alike(gpus, 2));
  EXPECT_TRUE(check_alike(gpus, 1));
  const auto mixed = check_alike(gpus, 3);
  ASSERT_FALSE(mixed);
  EXPECT_EQ(mixed.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(mixed.error().message.find("rank 0's has compute capability 9.0, rank 2's 8.0"),
            std::string::npos)
      << mixed.error().message;
}

}  // namespace
}  // namespace dsm::device
