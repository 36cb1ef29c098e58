// Operators on rows, of the device that is there against the CPU's plain table: to the bit, but for
// the norms, whose sums are in the device's own order.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

TEST_F(BackendTest, EmbeddingIsExact) {
  const auto table = random_floats(size(50) * 96, 1);
  const std::vector<std::int32_t> tokens = {3, -1, 49, 0, 3};
  const auto run = [&](const Side& side) {
    auto* y = allocate<float>(*side.backend, tokens.size() * 96);
    side.backend->embedding({tokens.data(), side.put(table), DType::kF32, y, 5, 96});
    return side.get(y, tokens.size() * 96);
  };
  EXPECT_EQ(run(device_), run(cpu_));
}

TEST_F(BackendTest, EmbeddingOfIntegersIsExact) {
  for (const DType dtype : {DType::kInt8, DType::kInt4}) {
    for (const int width : {8, 96, 300}) {
      Weight w = plain_weight(150, width, DType::kBF16, 4);
      w.piece.round_to = dtype;
      const std::vector<std::int32_t> tokens = {3, -1, 149, 0, 3, 64, 127};
      const auto run = [&](const Side& side) {
        const PackedMatrix table = load(side, w);
        auto* y = allocate<float>(*side.backend, tokens.size() * size(width));
        side.backend->embedding(
            {tokens.data(), table.data, table.dtype, y, 7, width, table.scales});
        return side.get(y, tokens.size() * size(width));
      };
      const auto got = run(device_);
      EXPECT_EQ(got, run(cpu_));
      EXPECT_NE(got[size(width) - 1], 0);
    }
  }
}

TEST_F(BackendTest, NormsAreNear) {
  for (const int width : {16, 128, 1536, 7168, 8208}) {
    const int ld = width + (width % 128 == 0 ? 5 : 4);
    const auto x = random_floats(size(9) * size(ld), 2, 3.0F);
    const auto weight = random_floats(size(width), 3);
    const std::vector<std::int32_t> index = {8, 0, 3};
    for (const bool indexed : {false, true}) {
      const int rows = indexed ? 3 : 9;
      const auto run = [&](const Side& side) {
        auto* y = allocate<float>(*side.backend, size(rows) * size(width));
        side.backend->rms_norm({side.put(x), ld, indexed ? index.data() : nullptr, side.put(weight),
                                y, width, rows, width, 1e-6F});
        return side.get(y, size(rows) * size(width));
      };
      expect_near(run(device_), run(cpu_), 2e-5, "width " + std::to_string(width));
    }
  }
}

TEST_F(BackendTest, NormsOfHeadsAreNear) {
  for (const int dim : {16, 48, 128, 256}) {
    constexpr int kTokens = 5, kQueries = 3, kKeys = 2;
    const int ld = (kQueries + 2 * kKeys) * dim;
    const auto x = random_floats(size(kTokens) * size(ld), 2, 3.0F);
    const auto query = random_floats(size(dim), 3);
    const auto key = random_floats(size(dim), 4);
    const auto run = [&](const Side& side) {
      auto* y = side.put(x);
      side.backend->norm_heads(
          {y, ld, side.put(query), side.put(key), kTokens, kQueries, kKeys, dim, 1e-6F});
      return side.get(y, x.size());
    };
    expect_near(run(device_), run(cpu_), 2e-5, "head of " + std::to_string(dim));
  }
}

TEST_F(BackendTest, RoundingToFp8IsExact) {
  const int width = 300;
  const auto x = random_floats(size(5) * size(width), 4);
  const std::vector<float> factor = {1, 0.5F, 3, 0.1F, 7};
  for (const bool power_of_two : {false, true}) {
    const auto run = [&](const Side& side) {
      auto* y = side.put(x);
      side.backend->quantise({.x = y,
                              .ldx = width,
                              .factor = factor.data(),
                              .y = y,
                              .ldy = width,
                              .rows = 5,
                              .width = width,
                              .power_of_two = power_of_two});
      return side.get(y, x.size());
    };
    EXPECT_EQ(run(device_), run(cpu_));
  }
}

TEST_F(BackendTest, TreeSumIsExact) {
  for (const int ranks : {2, 4, 8}) {
    const auto parts = random_floats(size(ranks) * 160, 16);
    const auto residual = random_floats(160, 17);
    const auto run = [&](const Side& side) {
      auto* y = side.put(residual);
      side.backend->tree_sum({side.put(parts), ranks, 160, y, y});
      return side.get(y, 160);
    };
    EXPECT_EQ(run(device_), run(cpu_));
  }
}

}  // namespace
}  // namespace dsm::device
