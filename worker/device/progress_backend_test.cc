// That a GPU gets on is seen while it works, in steps that are recorded, too.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/cuda_backend.h"

namespace dsm::device {
namespace {

class ProgressTest : public BackendTest {
 protected:
  // Norms of a few layers.
  void work() {
    for (int i = 0; i < 8; ++i) {
      device_.backend->rms_norm({.x = x_,
                                 .ldx = 8,
                                 .weight = x_,
                                 .y = x_,
                                 .ldy = 8,
                                 .rows = 1,
                                 .width = 8,
                                 .eps = 1e-6F});
    }
  }

  float* x_ = device_.put(std::vector<float>(8, 1.0F));
};

TEST_F(ProgressTest, IsSeenBeforeTheWorkIsDone) {
  struct Look {
    const Backend& backend;
    std::uint64_t moves = 0;
  } look{*device_.backend};
  const std::uint64_t before = look.backend.moves();
  work();
  // The GPU's stream calls it between the two halves.
  ASSERT_EQ(cudaLaunchHostFunc(
                stream_of(*device_.backend),
                [](void* at) {
                  auto& mine = *static_cast<Look*>(at);
                  mine.moves = mine.backend.moves();
                },
                &look),
            cudaSuccess);
  work();
  device_.backend->wait();
  EXPECT_NE(look.moves, before);
  EXPECT_NE(device_.backend->moves(), look.moves);
  EXPECT_EQ(device_.backend->moves(), std::as_const(*device_.backend).moves()) << "it stands still";
}

TEST_F(ProgressTest, IsSeenInStepsThatAreRecorded) {
  for (int step = 0; step < 4; ++step) {
    const std::uint64_t before = device_.backend->moves();
    device_.backend->stage({}, {});
    device_.backend->repeat({.tokens = 1, .positions = 1024}, [&] { work(); });
    device_.backend->wait();
    EXPECT_NE(device_.backend->moves(), before) << "step " << step;
  }
}

}  // namespace
}  // namespace dsm::device
