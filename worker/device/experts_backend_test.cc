// Mixtures of experts on the device that is there against the CPU's plain table, up to a bound. A
// token has the same bits alone and among others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/experts_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

TEST_F(BackendTest, ExpertsAreNear) {
  for (const DType dtype : kTypes) {
    for (const int tokens : {1, 5, 40, 130}) {
      const Experts experts(tokens, 6, dtype);
      const auto x = random_floats(size(tokens) * Experts::kHidden, 14);
      // By integers the CPU's inputs have 16 bits for the largest of 128.
      expect_near(experts.run(device_, x), experts.run(cpu_, x), is_integer(dtype) ? 1.5e-3 : 3e-4,
                  std::to_string(tokens) + " tokens");
    }
  }
}

// Rows that can be written four columns at a time, and others.
TEST_F(BackendTest, SlotsAreAddedUpWhateverTheWidth) {
  const std::vector<Group> groups = {{0, 3}, {3, 5}};
  const std::vector<std::int32_t> token = {0, 1, 2, 0, 2};
  for (const auto& [n, ldy] : {std::pair{70, 70}, {72, 73}, {72, 76}}) {
    const Weight first = plain_weight(n, 40, DType::kBF16, 71);
    const Weight second = plain_weight(n, 40, DType::kBF16, 72);
    const auto run = [&, n = n, ldy = ldy](const Side& side) {
      const SegmentedMatrix w[] = {load_whole(side, first), load_whole(side, second)};
      auto* y = side.put(random_floats(size(3) * size(ldy), 73));
      side.backend->row_parallel({.h = side.put(random_floats(size(5) * 40, 74)),
                                  .ldh = 40,
                                  .token = token.data(),
                                  .groups = groups.data(),
                                  .w = w,
                                  .group_count = 2,
                                  .tokens = 3,
                                  .residual = y,
                                  .y = y,
                                  .ldy = ldy});
      return side.get(y, size(3) * size(ldy));
    };
    expect_near(run(device_), run(cpu_), 1e-5, std::to_string(n) + " columns");
  }
}

// Two adapters of ranks 8 and 10 on some of the tokens.
Experts::Adapted adapted_of(int tokens) {
  Experts::Adapted adapted{
      .start = random_floats(size(tokens) * 640, 34), .down = {}, .groups = {}, .token = {}};
  for (int t = 1; t < tokens; t += 2) adapted.token.push_back(t);
  const auto middle = static_cast<int>(adapted.token.size());
  for (int t = 2; t < tokens; t += 4) adapted.token.push_back(t);
  adapted.groups = {{0, middle}, {middle, static_cast<int>(adapted.token.size())}};
  adapted.down.push_back(weight(Experts::kOut, 8, DType::kF32, 35));
  adapted.down.push_back(weight(Experts::kOut, 10, DType::kBF16, 36));
  return adapted;
}

TEST_F(BackendTest, ExpertsWithAdaptersAreNearAndOtherTokensKeepTheirBits) {
  for (const int experts : {0, 6}) {
    for (const int tokens : {3, 40}) {
      const Experts mixture(tokens, experts, DType::kBF16);
      auto adapted = adapted_of(tokens);
      std::fill_n(adapted.start.begin(), 640, 0.0F);  // the first token has no adapter
      const auto x = random_floats(size(tokens) * Experts::kHidden, 14);
      const auto got = mixture.run(device_, x, &adapted);
      expect_near(got, mixture.run(cpu_, x, &adapted), 3e-4,
                  std::to_string(experts) + " experts, " + std::to_string(tokens) + " tokens");
      const auto without = mixture.run(device_, x);
      EXPECT_TRUE(std::equal(got.begin(), got.begin() + Experts::kOut, without.begin()));
      EXPECT_FALSE(std::equal(got.begin() + Experts::kOut, got.begin() + 2 * Experts::kOut,
                              without.begin() + Experts::kOut));
    }
  }
}

TEST_F(BackendTest, ADenseMlpsTokenHasTheSameBitsAloneAndAmongOthers) {
  const Experts many(100, 0, DType::kBF16);
  Experts one(1, 0, DType::kBF16);
  const auto x = random_floats(size(100) * Experts::kHidden, 15);
  const auto all = many.run(device_, x);
  one.weight[0] = many.weight[0];
  const auto alone = one.run(device_, {x.begin(), x.begin() + Experts::kHidden});
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin()));
}

}  // namespace
}  // namespace dsm::device
