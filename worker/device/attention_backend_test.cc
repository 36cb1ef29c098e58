// Rotation, the KV cache and attention on the device that is there against the CPU's plain table:
// to the bit, but for sums, which are in the device's own order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "worker/device/attention_fixture.h"
#include "worker/device/backend_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// Of attention on tensor cores: 16 bits of queries, keys, exponentials and values take part, each
// of which is a few units at most.
constexpr double kAttentionBound = 5e-5;

RopeTable rope_of(const Side& side, int positions, int pairs, bool halves) {
  auto cos = random_floats(size(positions) * size(pairs), 18);
  auto sin = random_floats(size(positions) * size(pairs), 19);
  return {side.put(cos), side.put(sin), pairs, halves};
}

TEST_F(BackendTest, RotatedQueriesAreExact) {
  const std::vector<TokenPlace> places = {{3, 0}, {70, 1}, {9, 2}};
  const auto q = random_floats(size(3) * 4 * 24, 20);
  for (const bool halves : {false, true}) {
    for (const bool in_place : {false, true}) {
      const auto run = [&](const Side& side) {
        auto* from = side.put(q);
        auto* to = in_place ? from : allocate<float>(*side.backend, q.size());
        side.backend->rope_query({from, 96, 24, 8, to, 24, in_place ? 8 : 4, places.data(),
                                  rope_of(side, 100, 8, halves), 3, 4});
        return side.get(to, q.size());
      };
      EXPECT_EQ(run(device_), run(cpu_));
    }
  }
}

TEST_F(BackendTest, KeysAndValuesStandInTheCache) {
  const std::vector<TokenPlace> places = {{0, 2}, {63, 2}, {64, 0}, {130, 1}};
  const auto latent = [&](const Side& side) {
    const KvLayer kv{allocate<float>(*side.backend, size(3) * 48 * 64),
                     allocate<float>(*side.backend, size(3) * 64 * 32), 1, 48, 32};
    side.backend->kv_write({side.put(random_floats(size(4) * 50, 21)), 50,
                            side.put(random_floats(32, 22)), places.data(), kv,
                            rope_of(side, 200, 8, false), 4, 1e-6F});
    auto cache = side.get(static_cast<const float*>(kv.keys), size(3) * 48 * 64);
    const auto values = side.get(static_cast<const float*>(kv.values), size(3) * 64 * 32);
    cache.insert(cache.end(), values.begin(), values.end());
    return cache;
  };
  expect_near(latent(device_), latent(cpu_), 1e-5, "latents");
  const auto heads = [&](const Side& side) {
    const KvLayer kv{allocate<float>(*side.backend, size(3) * 2 * 16 * 64),
                     allocate<float>(*side.backend, size(3) * 2 * 64 * 16), 2, 16, 16};
    const float* k = side.put(random_floats(size(4) * 70, 23));
    side.backend->kv_write_heads(
        {k, k + 32, 70, places.data(), kv, rope_of(side, 200, 8, true), 4});
    auto cache = side.get(static_cast<const float*>(kv.keys), size(3) * 2 * 16 * 64);
    const auto values = side.get(static_cast<const float*>(kv.values), size(3) * 2 * 64 * 16);
    cache.insert(cache.end(), values.begin(), values.end());
    return cache;
  };
  EXPECT_EQ(heads(device_), heads(cpu_));
}

// As many tokens as a prompt has: of two sequences, from the middle of a block on.
TEST_F(BackendTest, KeysAndValuesOfPromptsStandInTheCache) {
  constexpr int kTokens = 150;
  std::vector<TokenPlace> places;
  for (int t = 0; t < 90; ++t) places.push_back({37 + t, t < 27 ? 3 : t < 91 ? 0 : 1});
  for (int t = 90; t < kTokens; ++t) places.push_back({t - 90, 2});
  for (const auto& [dim, value] : {std::pair{16, 16}, {128, 64}, {40, 32}}) {
    const auto run = [&](const Side& side) {
      const std::size_t keys = size(4 * 2 * 64) * size(dim);
      const std::size_t values = size(4 * 2 * 64) * size(value);
      const KvLayer kv{allocate<float>(*side.backend, keys), allocate<float>(*side.backend, values),
                       2, dim, value};
      side.backend->clear(static_cast<float*>(kv.keys), keys);
      side.backend->clear(static_cast<float*>(kv.values), values);
      const int ld = 2 * (dim + value) + 4;
      const float* k = side.put(random_floats(size(kTokens) * size(ld), 23));
      side.backend->kv_write_heads(
          {k, k + 2 * dim, ld, places.data(), kv, rope_of(side, 200, dim / 2, true), kTokens});
      auto cache = side.get(static_cast<const float*>(kv.keys), keys);
      const auto others = side.get(static_cast<const float*>(kv.values), values);
      cache.insert(cache.end(), others.begin(), others.end());
      return cache;
    };
    EXPECT_EQ(run(device_), run(cpu_)) << dim;
  }
}

// Over a block and a part of another, with dimensions that are more and less than turn at a time.
TEST_F(BackendTest, ExpandedHeadsAreExact) {
  constexpr int kRows = 64 + 50;
  constexpr int kHeads = 3;
  constexpr int kRope = 8;
  for (const auto& [nope, value] : {std::pair{16, 16}, {48, 32}}) {
    const auto run = [&](const Side& side) {
      auto* keys = allocate<float>(*side.backend, size(2 * kHeads * 64) * size(nope + kRope));
      auto* values = allocate<float>(*side.backend, size(2 * kHeads * 64) * size(value));
      side.backend->clear(keys, size(2 * kHeads * 64) * size(nope + kRope));
      side.backend->clear(values, size(2 * kHeads * 64) * size(value));
      side.backend->heads_expand(
          {.x = side.put(random_floats(size(kRows * kHeads) * size(nope + value), 24)),
           .rotated = side.put(random_floats(size(2 * kRope) * 64, 25)),
           .keys = keys,
           .values = values,
           .rows = kRows,
           .heads = kHeads,
           .nope = nope,
           .rope = kRope,
           .value = value});
      auto all = side.get(keys, size(2 * kHeads * 64) * size(nope + kRope));
      const auto others = side.get(values, size(2 * kHeads * 64) * size(value));
      all.insert(all.end(), others.begin(), others.end());
      return all;
    };
    EXPECT_EQ(run(device_), run(cpu_)) << nope;
  }
}

TEST_F(BackendTest, AttentionIsNearForEveryLengthOfThePast) {
  const std::vector<int> lengths = {1, 63, 64, 65, 255, 256, 257, 700};
  std::vector<Past::Run> runs;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const int tokens = std::min(lengths[i], 5);
    runs.push_back({i, lengths[i] - tokens, tokens});
  }
  const int tokens = 1 + 7 * 5;
  for (const auto& [heads, kv] :
       {std::pair{16, KvLayer{.heads = 1, .key_dim = 576, .value_dim = 512}},
        {8, KvLayer{.heads = 1, .key_dim = 160, .value_dim = 128}},
        {7, KvLayer{.heads = 2, .key_dim = 128, .value_dim = 128}},
        {1, KvLayer{.heads = 3, .key_dim = 20, .value_dim = 16}}}) {
    const Past past(kv, heads, lengths);
    const auto query =
        random_floats(size(tokens) * size(heads) * size(kv.heads) * size(kv.key_dim), 27);
    const auto wanted = past.attend(cpu_, runs, query, 32);
    for (const int item_rows : {7, 16, 32}) {
      expect_near(past.attend(device_, runs, query, item_rows), wanted, kAttentionBound,
                  "keys of " + std::to_string(kv.key_dim));
    }
  }
}

// Rows of a prompt that go through the cache together, beside a token that is decoded. Neither
// dimensions nor rows fill the last step or tile.
TEST_F(BackendTest, APromptsAttentionIsNear) {
  const KvLayer kv{.heads = 2, .key_dim = 44, .value_dim = 48};
  const Past past(kv, 3, {150, 70});
  const std::vector<Past::Run> runs = {{0, 20, 130}, {1, 69, 1}};
  const auto query = random_floats(size(131) * 6 * 44, 41);
  const auto wanted = past.attend(cpu_, runs, query, 32);
  expect_near(past.attend(device_, runs, query, 32), wanted, kAttentionBound, "prompt");
}

// Queries and exponentials with 8 bits of their fractions, over keys and values with 16.
TEST_F(BackendTest, LooseAttentionIsWithinItsBound) {
  const Side loose{make_backend({.device = *find_device("auto"), .exact = false})};
  const KvLayer kv{.heads = 1, .key_dim = 64, .value_dim = 64};
  const Past past(kv, 4, {90});
  const std::vector<Past::Run> runs = {{0, 50, 40}};
  const auto query = random_floats(size(40) * 4 * 64, 43);
  const auto got = past.attend(loose, runs, query, 32);
  expect_near(got, past.attend(cpu_, runs, query, 32), 2e-2, "loose");
  // A token alone goes by splits.
  const auto last = query.begin() + std::ptrdiff_t{39} * 4 * 64;
  const auto alone = past.attend(loose, {{0, 89, 1}}, {last, query.end()}, 4);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), got.end() - std::ptrdiff_t{4} * 64));
}

// What two BF16 terms leave of a value is 2^-17 of it at most.
TEST_F(BackendTest, AttentionToOnePositionGivesItsValue) {
  const KvLayer kv{.heads = 1, .key_dim = 32, .value_dim = 64};
  const Past past(kv, 2, {1});
  const auto query = random_floats(size(2) * 32, 42);
  const auto wanted = past.attend(cpu_, {{0, 0, 1}}, query, 2);
  const auto got = past.attend(device_, {{0, 0, 1}}, query, 2);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(got[i], wanted[i], std::abs(wanted[i]) * 0x1p-17) << i;
  }
}

TEST_F(BackendTest, ATokensAttentionHasTheSameBitsAloneAndInAPrompt) {
  const KvLayer kv{.heads = 1, .key_dim = 160, .value_dim = 128};
  const Past past(kv, 8, {400});
  const auto query = random_floats(size(400) * 8 * 160, 28);
  const auto all = past.attend(device_, {{0, 0, 400}}, query, 32);
  for (const int at : {0, 63, 64, 255, 256, 399}) {
    const auto row = query.begin() + at * 8 * 160;
    const auto alone = past.attend(device_, {{0, at, 1}}, {row, row + std::ptrdiff_t{8} * 160}, 8);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + at * 8 * 128))
        << "position " << at;
  }
}

TEST_F(BackendTest, AttentionReadsItemsThatAreStaged) {
  const KvLayer kv{.heads = 2, .key_dim = 32, .value_dim = 16};
  const Past past(kv, 4, {300, 70, 5});
  const std::vector<Past::Run> runs = {{1, 60, 10}, {0, 299, 1}, {2, 0, 5}};
  const auto query = random_floats(size(16) * 8 * 32, 40);
  EXPECT_EQ(past.attend(device_, runs, query, 16, true), past.attend(device_, runs, query, 16));
}

}  // namespace
}  // namespace dsm::device
