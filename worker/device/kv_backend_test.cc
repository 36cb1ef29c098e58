// KV caches in BF16 and FP8 on the device that is there against the CPU's plain table: what is
// written to the bit where its inputs are, attention over it up to a bound, and a token's attention
// with the same bits alone and in a prompt.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr DType kRounded[] = {DType::kBF16, DType::kF8E4M3};

// Of attention on tensor cores: 16 bits of a query and of an exponential take part.
constexpr double kBound = 5e-5;

// A sequence of kTokens tokens of 2 KV heads with 3 query heads each, of 160 values: not a multiple
// of the 128 that have a scale. It is written by the backend itself.
struct Heads {
  static constexpr int kTokens = 300;
  static constexpr int kFirst = kEmulated ? 275 : 0;  // that attends
  static constexpr int kDim = 160;
  static constexpr int kKvHeads = 2;
  static constexpr int kHeads = 3;
  static constexpr int kBlocks = (kTokens + kKvBlock - 1) / kKvBlock;

  const Side& side;
  std::vector<std::int32_t> table;
  std::vector<TokenPlace> places;
  std::vector<float> query = random_floats(size(kTokens) * kKvHeads * kHeads * kDim, 1);
  KvLayer kv{.heads = kKvHeads, .key_dim = kDim, .value_dim = kDim};

  Heads(const Side& where, DType dtype) : side(where) {
    for (int b = kBlocks; b-- > 0;) table.push_back(b);
    for (int t = 0; t < kTokens; ++t) places.push_back({t, table[size(t / kKvBlock)]});
    kv.dtype = dtype;
    const std::size_t heads = size(kBlocks) * kKvHeads;
    kv.keys = side.backend->allocate(heads * size(key_block_bytes(kv)));
    kv.values = side.backend->allocate(heads * size(value_block_bytes(kv)));
    kv.key_scales = allocate<float>(*side.backend, heads * size(key_scales_of(kv)) * kKvBlock);
    kv.value_scales = allocate<float>(*side.backend, heads * size(value_scales_of(kv)) * kKvBlock);
    const float* rows = side.put(random_floats(size(kTokens) * 2 * kKvHeads * kDim, 2));
    const RopeTable rope{side.put(random_floats(size(kTokens) * kDim / 2, 3)),
                         side.put(random_floats(size(kTokens) * kDim / 2, 4)), kDim / 2, true};
    side.backend->kv_write_heads({rows, rows + std::ptrdiff_t{kKvHeads} * kDim,
                                  std::int64_t{2} * kKvHeads * kDim, places.data(), kv, rope,
                                  kTokens});
  }

  // Keys, values and scales of all blocks; values as bits of FP32.
  std::vector<float> contents() const {
    const std::size_t heads = size(kBlocks) * kKvHeads;
    auto all = side.get(static_cast<const float*>(kv.keys), heads * size(key_block_bytes(kv)) / 4);
    const auto add = [&](const void* from, std::size_t count) {
      const auto more = side.get(static_cast<const float*>(from), count);
      all.insert(all.end(), more.begin(), more.end());
    };
    add(kv.values, heads * size(value_block_bytes(kv)) / 4);
    if (kv.dtype == DType::kF8E4M3) {
      add(kv.key_scales, heads * size(key_scales_of(kv)) * kKvBlock);
      add(kv.value_scales, heads * size(value_scales_of(kv)) * kKvBlock);
    }
    return all;
  }

  // Of tokens [begin, end).
  std::vector<float> attend(int begin, int end, int item_rows) const {
    std::vector<AttentionItem> items;
    const int rows = (end - begin) * kHeads;
    for (int h = 0; h < kKvHeads; ++h) {
      for (int at = 0; at < rows; at += item_rows) {
        items.push_back({at, std::min(rows, at + item_rows), table.data(), h});
      }
    }
    const std::size_t count = size(end - begin) * kKvHeads * kHeads * kDim;
    auto* out = allocate<float>(*side.backend, count);
    side.backend->attention({.query = side.put(query) + begin * kKvHeads * kHeads * kDim,
                             .out = out,
                             .places = places.data() + begin,
                             .items = items.data(),
                             .item_count = static_cast<int>(items.size()),
                             .heads = kHeads,
                             .kv = kv,
                             .scale = 0.08F});
    return side.get(out, count);
  }
};

KvLayer latent_cache(const Side& side, DType dtype, int latent, int rope, int blocks) {
  KvLayer kv{.key_dim = latent + rope, .value_dim = latent, .dtype = dtype};
  if (dtype == DType::kF8E4M3) kv.plain_dim = rope;
  kv.keys = side.backend->allocate(size(blocks) * size(key_block_bytes(kv)));
  kv.values = side.backend->allocate(size(blocks) * size(value_block_bytes(kv)));
  kv.key_scales = allocate<float>(*side.backend, size(blocks) * size(key_scales_of(kv)) * kKvBlock);
  kv.value_scales = kv.key_scales;
  return kv;
}
RopeTable latent_rope(const Side& side, int positions, int rope) {
  return {side.put(random_floats(size(positions) * size(rope) / 2, 5)),
          side.put(random_floats(size(positions) * size(rope) / 2, 6)), rope / 2};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_F(BackendTest, RoundedKeysAndValuesOfHeadsAreExact) {
  for (const DType dtype : kRounded) {
    EXPECT_TRUE(same_bits(Heads(device_, dtype).contents(), Heads(cpu_, dtype).contents()));
  }
}

TEST_F(BackendTest, AttentionOverRoundedHeadsIsNear) {
  for (const DType dtype : kRounded) {
    const auto wanted = Heads(cpu_, dtype).attend(Heads::kFirst, Heads::kTokens, 32);
    const Heads heads(device_, dtype);
    for (const int item_rows : {7, 32}) {
      expect_near(heads.attend(Heads::kFirst, Heads::kTokens, item_rows), wanted, kBound,
                  "rounded heads");
    }
  }
}

// Queries and exponentials with 8 bits of their fractions.
TEST_F(BackendTest, LooseAttentionOverRoundedHeadsIsWithinItsBound) {
  const Side loose{make_backend({.device = *find_device("auto"), .exact = false})};
  for (const DType dtype : kRounded) {
    const auto wanted = Heads(cpu_, dtype).attend(Heads::kFirst, Heads::kTokens, 32);
    expect_near(Heads(loose, dtype).attend(Heads::kFirst, Heads::kTokens, 32), wanted, 2e-2,
                "loose");
  }
}

TEST_F(BackendTest, ATokensAttentionOverRoundedHeadsHasTheSameBitsAloneAndInAPrompt) {
  constexpr int kRow = Heads::kKvHeads * Heads::kHeads * Heads::kDim;
  for (const DType dtype : kRounded) {
    const Heads heads(device_, dtype);
    const auto all = heads.attend(Heads::kFirst, Heads::kTokens, 32);
    for (const int t : {0, 63, 64, 256, 280, 299}) {
      if (t < Heads::kFirst) continue;
      const auto alone = heads.attend(t, t + 1, Heads::kHeads);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + (t - Heads::kFirst) * kRow))
          << t;
    }
  }
}

// Over all positions, and over a selection that leaves out a whole block.
TEST_F(BackendTest, AttentionOverARoundedLatentIsNear) {
  constexpr int kPast = 290;
  constexpr int kLatent = 144;
  constexpr int kRope = 32;
  constexpr int kHeads = 20;
  constexpr int kTokens = 2;
  constexpr int kBlocks = (kPast + kKvBlock - 1) / kKvBlock;
  for (const DType dtype : kRounded) {
    for (const bool selects : {false, true}) {
      const auto run = [&](const Side& side) {
        const KvLayer kv = latent_cache(side, dtype, kLatent, kRope, kBlocks);
        std::vector<std::int32_t> table;
        for (int b = kBlocks; b-- > 0;) table.push_back(b);
        std::vector<TokenPlace> places;
        for (int t = 0; t < kPast; ++t) places.push_back({t, table[size(t / kKvBlock)]});
        // Norms that need no rounding, so that both sides round the same values.
        std::vector<float> rows(size(kPast) * (kLatent + kRope), 1.0F);
        const auto signs = random_floats(rows.size(), 9);
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = signs[i] < 0 ? -1.0F : 1.0F;
        side.backend->kv_write({side.put(rows), kLatent + kRope,
                                side.put(random_floats(kLatent, 10)), places.data(), kv,
                                latent_rope(side, kPast, kRope), kPast, 0.0F});
        std::vector<float> words(size(kTokens) * kBlocks * 2);
        std::vector<std::uint64_t> bits(size(kTokens) * kBlocks, 0x8000000000000421U);
        bits[1] = bits[kBlocks + 1] = 0;
        bits[kBlocks - 1] = bits[2 * kBlocks - 1] = 3;
        std::memcpy(words.data(), bits.data(), words.size() * sizeof(float));
        auto* selected = reinterpret_cast<std::uint64_t*>(side.put(words));
        const std::vector<AttentionItem> items = {{0, 32, table.data(), 0},
                                                  {32, kTokens * kHeads, table.data(), 0}};
        auto* out = allocate<float>(*side.backend, size(kTokens) * kHeads * kLatent);
        side.backend->attention(
            {.query = side.put(random_floats(size(kTokens) * kHeads * (kLatent + kRope), 11)),
             .out = out,
             .places = places.data() + kPast - kTokens,
             .items = items.data(),
             .item_count = 2,
             .heads = kHeads,
             .kv = kv,
             .scale = 0.1F,
             .selection = selects ? Selection{selected, kBlocks} : Selection{}});
        return side.get(out, size(kTokens) * kHeads * kLatent);
      };
      expect_near(run(device_), run(cpu_), kBound, selects ? "selected latents" : "latents");
    }
  }
}

// Latents are normed, whose last digits are the device's own: a value that lies between two of the
// cache's may go to either.
TEST_F(BackendTest, RoundedLatentsAreNear) {
  constexpr int kRows = 64 + 50;
  constexpr int kLatent = 144;
  constexpr int kRope = 32;
  const std::vector<std::int32_t> table = {2, 1};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    const auto read = [&](const Side& side) {
      const KvLayer kv = latent_cache(side, dtype, kLatent, kRope, 3);
      std::vector<TokenPlace> places;
      for (int t = 0; t < kRows; ++t) places.push_back({t, table[size(t / kKvBlock)]});
      side.backend->kv_write({side.put(random_floats(size(kRows) * 180, 7)), 180,
                              side.put(random_floats(kLatent, 8)), places.data(), kv,
                              latent_rope(side, kRows, kRope), kRows, 1e-6F});
      auto* latents = allocate<float>(*side.backend, size(kRows) * kLatent);
      auto* rotated = allocate<float>(*side.backend, size(2 * kRope) * kKvBlock);
      side.backend->latent_read({kv, table.data(), kRows, latents, rotated});
      auto all = side.get(latents, size(kRows) * kLatent);
      const auto turned = side.get(rotated, size(2 * kRope) * kKvBlock);
      all.insert(all.end(), turned.begin(), turned.end());
      return all;
    };
    const auto wanted = read(cpu_);
    const auto got = read(device_);
    const float step = dtype == DType::kF32 ? 0 : dtype == DType::kBF16 ? 0x1p-7F : 0x1p-3F;
    int elsewhere = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], 1e-5 + step * std::abs(wanted[i])) << i;
      if (std::abs(got[i] - wanted[i]) > 1e-5) ++elsewhere;
    }
    EXPECT_LT(elsewhere, static_cast<int>(wanted.size()) / 200);
    // The rotated part has no norm before it.
    const auto rotated = std::ptrdiff_t{kRows} * kLatent;
    EXPECT_TRUE(std::equal(got.begin() + rotated, got.end(), wanted.begin() + rotated));
  }
}

}  // namespace
}  // namespace dsm::device
