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
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// A mixture of experts: every token is in the first group, and in some of the others.
struct Experts {
  static constexpr int kHidden = 96;
  static constexpr int kWidth = 144;  // of a hidden part: not a multiple of 32
  static constexpr int kOut = 208;
  std::vector<Weight> gate_up;
  std::vector<Weight> down;
  std::vector<Group> groups;
  std::vector<std::int32_t> token;
  std::vector<float> weight;
  int tokens;

  Experts(int count, int experts, DType dtype) : tokens(count) {
    std::mt19937 random(11);
    for (int t = 0; t < tokens; ++t) token.push_back(t);
    groups.push_back({0, tokens});
    for (int e = 0; e < experts; ++e) {
      const auto begin = static_cast<int>(token.size());
      for (int t = 0; t < tokens; ++t) {
        if (e != 1 && random() % 3 == 0) token.push_back(t);  // expert 1 has none
      }
      groups.push_back({begin, static_cast<int>(token.size())});
    }
    weight = random_floats(token.size(), 12);
    for (int e = 0; e <= experts; ++e) {
      // The shared expert is in BF16 and wider, as some checkpoints mix types.
      const DType type = e == 0 ? DType::kBF16 : dtype;
      const auto seed = static_cast<unsigned>(700 + 2 * e);
      gate_up.push_back(dsm::device::weight(e == 0 ? 640 : 320, kHidden, type, seed));
      down.push_back(dsm::device::weight(kOut, e == 0 ? 300 : kWidth, type, seed));
    }
  }

  // What adapters add: to the first group's gate and up products, and to the sums of some tokens.
  struct Adapted {
    std::vector<float> start;  // [tokens, panels * 64 of the first group]
    std::vector<Weight> down;
    std::vector<Group> groups;
    std::vector<std::int32_t> token;
  };

  // The output [tokens, kOut] for tokens' rows of x.
  std::vector<float> run(const Side& side, const std::vector<float>& x,
                         const Adapted* adapted = nullptr) const {
    std::vector<PackedMatrix> up;
    std::vector<SegmentedMatrix> out;
    up.reserve(gate_up.size());
    out.reserve(down.size());
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) out.push_back(load_whole(side, w));
    constexpr std::int64_t kStride = 320;
    auto* h = allocate<float>(*side.backend, token.size() * kStride);
    auto* y = side.put(random_floats(size(tokens) * kOut, 13));
    const auto count = static_cast<int>(groups.size());
    GateUpParams gate{side.put(x), kHidden, token.data(), weight.data(), groups.data(), up.data(),
                      count,       h,       kStride};
    RowParallelParams down_params{.h = h,
                                  .ldh = kStride,
                                  .token = token.data(),
                                  .groups = groups.data(),
                                  .w = out.data(),
                                  .group_count = count,
                                  .tokens = tokens,
                                  .residual = y,
                                  .y = y,
                                  .ldy = kOut};
    std::vector<SegmentedMatrix> more;
    if (adapted != nullptr) {
      gate.start = side.put(adapted->start);
      gate.lds = std::int64_t{panels_of(up[0])} * kPanel;
      for (const Weight& w : adapted->down) more.push_back(load_whole(side, w));
      down_params.adapter_h = side.put(random_floats(adapted->token.size() * 10, 33));
      down_params.adapter_ldh = 10;
      down_params.adapter_token = adapted->token.data();
      down_params.adapter_groups = adapted->groups.data();
      down_params.adapter_w = more.data();
      down_params.adapter_count = static_cast<int>(more.size());
    }
    side.backend->gate_up(gate);
    side.backend->row_parallel(down_params);
    return side.get(y, size(tokens) * kOut);
  }
};

TEST_F(BackendTest, ExpertsAreNear) {
  for (const DType dtype : kTypes) {
    for (const int tokens : {1, 5, 40, 130}) {
      const Experts experts(tokens, 6, dtype);
      const auto x = random_floats(size(tokens) * Experts::kHidden, 14);
      expect_near(experts.run(device_, x), experts.run(cpu_, x), 3e-4,
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
