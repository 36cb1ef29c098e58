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

// The sums of a long product meet in scratch memory; for more rows that moves, and what was
// recorded with it is recorded anew.
TEST_F(BackendTest, ARecordedStepIsForgottenWhenItsMemoryMoves) {
  const Weight w = weight(64, 3000, DType::kBF16, 39);
  const PackedMatrix packed = load(device_, w);
  const float* x = device_.put(random_floats(size(70) * 3000, 40));
  auto* y = allocate<float>(*device_.backend, size(70) * 64);
  const auto product = [&](int rows) {
    device_.backend->linear({.x = x, .ldx = 3000, .w = &packed, .y = y, .ldy = 64, .rows = rows});
  };
  product(1);
  const auto wanted = device_.get(y, 64);
  for (const bool moves : {false, false, false, true, false, false}) {
    if (moves) product(70);
    device_.backend->clear(y, 64);
    device_.backend->stage({}, {});
    device_.backend->repeat({.tokens = 1, .positions = 1024}, [&] { product(1); });
    EXPECT_EQ(device_.get(y, 64), wanted);
  }
}

// Logits go to the host after what is recorded: their memory grows and goes at any time.
TEST_F(BackendTest, ARecordedStepStaysWhenMemoryOfResultsGoes) {
  if (!device_.backend->records()) GTEST_SKIP() << "this device records nothing";
  const float* from = device_.put(random_floats(1000, 41));
  auto* to = allocate<float>(*device_.backend, 1000);
  Results results;
  int calls = 0;
  for (const std::size_t count : {10, 10, 500, 1000}) {
    device_.backend->stage({}, {});
    device_.backend->repeat({.tokens = 1, .positions = 1024}, [&] {
      ++calls;
      device_.backend->copy(to, from, 1000);
    });
    float* on_host = results.at_least(*device_.backend, count);
    device_.backend->copy(on_host, to, count);
    device_.backend->wait();
    EXPECT_EQ(device_.get(to, count), std::vector<float>(on_host, on_host + count));
  }
  EXPECT_EQ(calls, 2) << "the first time, and when it was recorded";
}

// A device that has been sent a step's lists reads those, until the step is over.
TEST_F(BackendTest, StagedListsStayWhenTheHostWaitsWithinAStep) {
  if (!device_.backend->records()) GTEST_SKIP() << "this device reads the host's lists";
  const auto table = random_floats(size(50) * 8, 42);
  const float* rows = device_.put(table);
  auto* y = allocate<float>(*device_.backend, 8);
  std::int32_t token = 7;
  const List list{&token, sizeof token};
  const auto row = [&](std::int32_t at) {
    return std::vector<float>(table.begin() + at * 8, table.begin() + (at + 1) * 8);
  };
  const auto embed = [&] { device_.backend->embedding({&token, rows, DType::kF32, y, 1, 8}); };
  device_.backend->stage({&list, 1}, {});
  embed();
  device_.backend->wait_within_step();
  token = 9;  // which the caller has promised not to do
  embed();
  EXPECT_EQ(device_.get(y, 8), row(7));
  embed();  // get() has ended the step
  EXPECT_EQ(device_.get(y, 8), row(9));
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
