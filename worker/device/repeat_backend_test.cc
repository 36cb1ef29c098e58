// Lists that are staged, and steps that are recorded and repeated (docs/decisions/0035).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// What is staged is read by all operators until the next is; what was recorded reads it as well.
TEST_F(BackendTest, RepeatedOperatorsReadTheListsThatAreStaged) {
  const auto table = random_floats(size(50) * 96, 37);
  const Weight w = weight(64, 96, DType::kBF16, 38);
  const auto run = [&](const Side& side, bool repeat) {
    const float* rows = side.put(table);
    const PackedMatrix packed = load(side, w);
    auto* x = allocate<float>(*side.backend, size(3) * 96);
    auto* y = allocate<float>(*side.backend, size(3) * 64);
    std::vector<std::int32_t> tokens(3);
    const auto operators = [&] {
      side.backend->embedding({tokens.data(), rows, DType::kF32, x, 3, 96});
      side.backend->linear({.x = x, .ldx = 96, .w = &packed, .y = y, .ldy = 64, .rows = 3});
    };
    std::vector<float> all;
    for (std::int32_t i = 0; i < 5; ++i) {
      tokens = {i, 7 * i % 50, 49 - i};
      const List list{tokens.data(), tokens.size() * sizeof tokens[0]};
      side.backend->stage({&list, 1}, {});
      // Another length comes between: a key of its own.
      if (repeat) {
        side.backend->repeat({.tokens = 3, .positions = i == 2 ? 2048 : 1024}, operators);
      } else {
        operators();
      }
      const auto some = side.get(y, size(3) * 64);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  };
  EXPECT_EQ(run(device_, true), run(device_, false));
  EXPECT_EQ(run(cpu_, true), run(cpu_, false));
}

// Memory that a recorded step writes to may go; then it is recorded anew.
TEST_F(BackendTest, ARecordedStepIsForgottenWhenItsMemoryMoves) {
  const auto x = random_floats(1000, 39);
  const float* from = device_.put(x);
  Results results;
  for (const std::size_t count : {10, 10, 10, 1000, 1000, 1000}) {
    float* to = results.at_least(*device_.backend, count);
    std::fill_n(to, count, 0.0F);
    device_.backend->stage({}, {});
    device_.backend->repeat({.tokens = 1, .positions = 1024},
                            [&] { device_.backend->copy(to, from, 10); });
    device_.backend->wait();
    EXPECT_TRUE(std::equal(to, to + 10, x.begin())) << count;
  }
}

TEST_F(BackendTest, WhatFailsWhileItIsRecordedLeavesTheDeviceUsable) {
  if (!device_.backend->records()) GTEST_SKIP() << "this device records nothing";
  const float* from = device_.put({1, 2, 3});
  auto* to = allocate<float>(*device_.backend, 3);
  bool fails = false;
  const auto operators = [&] {
    device_.backend->copy(to, from, 3);
    if (fails) throw std::runtime_error("on purpose");
  };
  const RepeatKey key{.tokens = 1, .positions = 1024};
  device_.backend->repeat(key, operators);
  fails = true;
  EXPECT_THROW(device_.backend->repeat(key, operators), std::runtime_error);
  fails = false;
  device_.backend->repeat(key, operators);
  EXPECT_EQ(device_.get(to, 3), (std::vector<float>{1, 2, 3}));
}

}  // namespace
}  // namespace dsm::device
