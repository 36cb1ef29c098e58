// What is counted of a GPU's memory, on the emulated one.
#include "worker/device/gpu_holdings.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "worker/device/cuda_arena.h"

namespace dsm::device {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

class Holdings : public testing::Test {
 protected:
  // More than when the test began.
  GpuHoldings held() const {
    const GpuHoldings now = gpu_holdings(0);
    return {.allocated = now.allocated - before_.allocated, .unused = now.unused - before_.unused};
  }

 private:
  const GpuHoldings before_ = gpu_holdings(0);
};

TEST_F(Holdings, AreThoseOfAllAllocationsUntilTheyAreFreed) {
  DeviceMemory one = device_memory(1000);
  auto other = std::make_unique<DeviceMemory>(device_memory(24));
  EXPECT_EQ(held().allocated, 1024);
  EXPECT_EQ(held().unused, 0);
  std::thread([&other] { other.reset(); }).join();
  EXPECT_EQ(held().allocated, 1000);
  DeviceMemory moved = std::move(one);
  EXPECT_EQ(held().allocated, 1000);
  moved.reset();
  EXPECT_EQ(held().allocated, 0);
}

TEST_F(Holdings, OfScratchAreItsLargestUse) {
  const Stream stream;
  Scratch scratch;
  scratch.at_least(100, stream);
  scratch.at_least(500, stream);
  scratch.at_least(300, stream);
  EXPECT_EQ(held().allocated, 500);
}

TEST_F(Holdings, OfAnArenaHaveTheFreeEndsOfItsChunks) {
  const Stream stream;
  {
    DeviceArena arena(8 * kMiB);
    arena.allocate(3 * kMiB, stream);
    EXPECT_EQ(held().allocated, 8 * kMiB);
    EXPECT_EQ(held().unused, 5 * kMiB);
    arena.allocate(4 * kMiB, stream);
    EXPECT_EQ(held().unused, kMiB);
    // Does not fit into the end that is left, which stays free.
    arena.allocate(2 * kMiB, stream);
    EXPECT_EQ(held().allocated, 16 * kMiB);
    EXPECT_EQ(held().unused, 7 * kMiB);
    // As large as a chunk, almost.
    arena.allocate(7 * kMiB + kMiB / 2, stream);
    EXPECT_EQ(held().allocated, 24 * kMiB);
    EXPECT_EQ(held().unused, 7 * kMiB + kMiB / 2);
    arena.allocate(kMiB / 2, stream);
    EXPECT_EQ(held().unused, 7 * kMiB);
    stream.synchronise();  // it was cleared
  }
  EXPECT_EQ(held().allocated, 0);
  EXPECT_EQ(held().unused, 0);
}

TEST(GpuHoldings, OfAGpuThatIsNoneAreNothing) {
  count_allocated(-1, 5);
  count_unused(1000, 5);
  EXPECT_EQ(gpu_holdings(-1).allocated, 0);
  EXPECT_EQ(gpu_holdings(1000).unused, 0);
}

}  // namespace
}  // namespace dsm::device
