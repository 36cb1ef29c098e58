// The arena on the emulated GPU with the chunks of a real one: the backend's tests have none, so
// that what goes past a piece is seen.
#include "worker/device/cuda_arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::size_t free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "ask for its free memory");
  return free;
}

class CudaArena : public testing::Test {
 protected:
  // That all bytes there have this value.
  testing::AssertionResult holds(const void* from, std::size_t bytes, std::uint8_t value) const {
    std::vector<std::uint8_t> found(bytes);
    check(cudaMemcpyAsync(found.data(), from, bytes, cudaMemcpyDeviceToHost, stream_.get()),
          "copy");
    stream_.synchronise();
    if (found[0] == value && std::memcmp(found.data(), found.data() + 1, bytes - 1) == 0) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << bytes << " bytes are not all " << int{value};
  }

  Stream stream_;
};

TEST_F(CudaArena, GivesZeroedPiecesThatAreApart) {
  DeviceArena arena(32 * kMiB);
  const std::size_t sizes[] = {1, 5000, 3 * kMiB, 20 * kMiB, 32 * kMiB, kMiB + 1, 256};
  std::vector<void*> pieces;
  std::uint8_t number = 0;
  for (const std::size_t bytes : sizes) {
    pieces.push_back(arena.allocate(bytes, stream_));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pieces.back()) % 256, 0U);
    EXPECT_TRUE(holds(pieces.back(), bytes, 0));
    check(cudaMemsetAsync(pieces.back(), ++number, bytes, stream_.get()), "fill");
  }
  number = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_TRUE(holds(pieces[i], sizes[i], ++number));
  }
}

// As of a rank's part of a mixture: expert after expert.
TEST_F(CudaArena, TakesLittleMoreThanIsAskedForAndGivesAllBack) {
  const std::size_t before = free_bytes();
  {
    DeviceArena arena(32 * kMiB);
    std::size_t asked = 0;
    for (int i = 0; i < 28; ++i) {
      for (const std::size_t bytes : {3 * kMiB + 4096, 3 * kMiB / 2}) {
        arena.allocate(bytes, stream_);
        asked += bytes;
      }
    }
    stream_.synchronise();
    EXPECT_LE(before - free_bytes(), asked + asked / 25);
  }
  EXPECT_EQ(free_bytes(), before);
}

TEST_F(CudaArena, ThatSleepsKeepsWhatWasSavedAtTheSameAddresses) {
  DeviceArena arena(32 * kMiB, /*sleeps=*/true);
  const std::size_t before = free_bytes();
  const std::size_t sizes[] = {5000, 40 * kMiB, kMiB};
  std::vector<void*> pieces;
  for (const std::size_t bytes : sizes) {
    pieces.push_back(arena.allocate(bytes, stream_));
    EXPECT_TRUE(holds(pieces.back(), bytes, 0));
    check(cudaMemsetAsync(pieces.back(), 7, bytes, stream_.get()), "fill");
  }
  for (const bool saves : {true, false}) {
    if (saves) arena.save(stream_);
    const GpuHoldings awake = gpu_holdings(0);
    arena.give_back();
    EXPECT_EQ(free_bytes(), before);
    EXPECT_EQ(gpu_holdings(0).allocated, 0);
    EXPECT_EQ(gpu_holdings(0).unused, 0);
    arena.take_again(stream_);
    stream_.synchronise();
    arena.forget_saved();
    EXPECT_EQ(gpu_holdings(0).allocated, awake.allocated);
    EXPECT_EQ(gpu_holdings(0).unused, awake.unused);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_TRUE(holds(pieces[i], sizes[i], saves ? 7 : 0));
    }
  }
}

// An allocation that fails leaves the arena as it was.
TEST_F(CudaArena, GoesOnAfterTheGpuHadNoRoom) {
  DeviceArena arena(32 * kMiB);
  arena.allocate(kMiB, stream_);
  EXPECT_THROW(arena.allocate(free_bytes() + 1, stream_), std::bad_alloc);
  EXPECT_TRUE(holds(arena.allocate(40 * kMiB, stream_), 40 * kMiB, 0));
}

}  // namespace
}  // namespace dsm::device
