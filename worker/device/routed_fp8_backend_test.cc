// Experts whose weights and rows are in FP8, over groups that the device has made: the bits that
// they have over the host's groups, and near the CPU's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/routing_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr int kExperts = 8;
constexpr int kTopK = 3;
constexpr int kHidden = 160;
constexpr int kShared = 300;  // the widths of the shared expert and of the others
constexpr int kWidth = 144;
constexpr int kOut = 208;
constexpr std::int64_t kStride = 320;

// For rows of up to `width` values; none where the backend takes none.
Fp8Rows fp8_rows(const Side& side, std::size_t rows, int width) {
  if (!side.backend->takes_fp8()) return {};
  const std::int64_t ld = round_up(width, kScaleBlock);
  return {allocate<std::uint8_t>(*side.backend, rows * size(ld)),
          allocate<float>(*side.backend, rows * size(ld / kScaleBlock)), ld};
}

struct Fp8Experts {
  std::vector<Weight> gate_up;
  std::vector<Weight> down;

  Fp8Experts() {
    for (int e = 0; e <= kExperts; ++e) {
      const int width = e == 0 ? kShared : kWidth;
      const auto seed = static_cast<unsigned>(700 + 2 * e);
      gate_up.push_back(fp8_weight(2 * static_cast<int>(round_up(width, 32)), kHidden, 0, seed));
      down.push_back(fp8_weight(kOut, width, 0, seed + 100));
    }
  }

  std::vector<float> run(const Side& side, const Routing& routing, const std::vector<float>& x,
                         bool by_host = false) const {
    std::vector<PackedMatrix> up;
    std::vector<SegmentedMatrix> out;
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) out.push_back(load_whole(side, w));
    const GroupExpertsParams p = by_host ? routing.lists(side) : routing.put(side);
    const std::size_t slots = size(p.tokens) * size(1 + p.top_k);
    const std::vector<float> ones(slots, 1.0F);
    auto* rounded = side.put(x);
    const Fp8Rows x_fp8 = fp8_rows(side, size(p.tokens), kHidden);
    auto* h = side.put(std::vector<float>(slots * kStride));
    const Fp8Rows h_fp8 = fp8_rows(side, slots, kStride);
    auto* y = side.put(random_floats(size(p.tokens) * kOut, 13));
    if (!by_host) side.backend->group_experts(p);
    side.backend->quantise({.x = rounded,
                            .ldx = kHidden,
                            .y = rounded,
                            .ldy = kHidden,
                            .rows = p.tokens,
                            .width = kHidden,
                            .y_fp8 = x_fp8});
    forget(side, rounded, x.size());
    side.backend->gate_up({.x = rounded,
                           .ldx = kHidden,
                           .token = p.token,
                           .weight = by_host ? ones.data() : side.put(ones),
                           .groups = p.groups,
                           .w = up.data(),
                           .group_count = 1 + p.experts,
                           .h = h,
                           .ldh = kStride,
                           .x_fp8 = x_fp8,
                           .routing = by_host ? nullptr : &p});
    round(side, p, h, h_fp8, by_host);
    forget(side, h, slots * kStride);
    side.backend->row_parallel({.h = h,
                                .ldh = kStride,
                                .token = p.token,
                                .groups = p.groups,
                                .w = out.data(),
                                .group_count = 1 + p.experts,
                                .tokens = p.tokens,
                                .residual = y,
                                .y = y,
                                .ldy = kOut,
                                .h_fp8 = h_fp8,
                                .routing = by_host ? nullptr : &p});
    return side.get(y, size(p.tokens) * kOut);
  }

 private:
  // The shared expert's rows, and the others' times their weights.
  static void round(const Side& side, const GroupExpertsParams& p, float* h, const Fp8Rows& h_fp8,
                    bool by_host) {
    side.backend->quantise({.x = h,
                            .ldx = kStride,
                            .y = h,
                            .ldy = kStride,
                            .rows = p.tokens,
                            .width = kShared,
                            .y_fp8 = h_fp8});
    float* const first = h + p.tokens * kStride;
    QuantiseParams params{.x = first,
                          .ldx = kStride,
                          .y = first,
                          .ldy = kStride,
                          .width = kWidth,
                          .y_fp8 = h_fp8.from(p.tokens)};
    if (!by_host) return side.backend->quantise_slots(params, p);
    params.rows = p.groups[p.experts].end - p.tokens;
    params.factor = p.weight + p.tokens;
    side.backend->quantise(params);
  }

  // Where rows are taken in FP8 nobody may read the same in FP32.
  static void forget(const Side& side, float* rows, std::size_t count) {
    if (!side.backend->takes_fp8()) return;
    side.backend->wait();
    const std::vector<float> nothing(count, std::numeric_limits<float>::quiet_NaN());
    side.backend->write(rows, nothing.data(), count * sizeof(float));
  }
};

TEST_F(BackendTest, RoutedExpertsInFp8HaveTheBitsOfTheHostsGroups) {
  const Fp8Experts experts;
  for (const int tokens : {1, 3, 70}) {
    const Routing routing(tokens, kExperts, kTopK);
    const auto x = random_floats(size(tokens) * kHidden, 45);
    EXPECT_EQ(experts.run(device_, routing, x), experts.run(device_, routing, x, true)) << tokens;
    EXPECT_EQ(experts.run(cpu_, routing, x), experts.run(cpu_, routing, x, true)) << tokens;
  }
}

// A last digit decides now and then to which FP8 value a hidden value is rounded.
TEST_F(BackendTest, RoutedExpertsInFp8AreNear) {
  const Fp8Experts experts;
  const Routing routing(40, kExperts, kTopK);
  const auto x = random_floats(size(40) * kHidden, 46);
  const auto got = experts.run(device_, routing, x);
  const auto wanted = experts.run(cpu_, routing, x);
  double largest = 0;
  for (const float value : wanted) largest = std::max(largest, std::abs(double{value}));
  expect_near(got, wanted, 0.02 * largest, "40 tokens");
}

// Choices of experts that this rank does not have leave slots at the end, which nobody touches.
TEST_F(BackendTest, SlotsThatNoExpertHasAreNotRounded) {
  constexpr int kTokens = 9;
  const Routing routing(kTokens, kExperts, kTopK);
  const auto run = [&](const Side& side) {
    GroupExpertsParams p = routing.put(side);
    p.experts = kExperts / 2;
    side.backend->group_experts(p);
    const std::size_t slots = size(kTokens) * size(1 + kTopK);
    auto* h = side.put(random_floats(slots * kStride, 47));
    float* const first = h + kTokens * kStride;
    side.backend->quantise_slots(
        {.x = first, .ldx = kStride, .y = first, .ldy = kStride, .width = kWidth}, p);
    return side.get(h, slots * kStride);
  };
  const auto got = run(device_);
  EXPECT_EQ(got, run(cpu_));
  const auto before = random_floats(got.size(), 47);
  EXPECT_EQ(got.back(), before.back());
  EXPECT_NE(got[size(kTokens * kStride)], before[size(kTokens * kStride)]);
  EXPECT_EQ(got[0], before[0]) << "the shared expert's";
  const auto last = got.end() - kStride;
  EXPECT_TRUE(std::equal(last, got.end(), before.end() - kStride)) << "of a choice without expert";
}

}  // namespace
}  // namespace dsm::device
