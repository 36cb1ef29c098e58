// The operators of sparse attention on the device that is there against the CPU's plain table:
// keys, scores and so the selection to the bit, attention over it up to a bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "worker/device/backend_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

TEST_F(BackendTest, IndexKeysAreExact) {
  const std::vector<TokenPlace> places = {{0, 2}, {63, 2}, {64, 0}, {130, 1}};
  for (const auto& [dim, pairs] : {std::pair{16, 8}, {48, 8}, {128, 32}, {256, 0}}) {
    for (const bool halves : {false, true}) {
      const auto run = [&](const Side& side) {
        const std::size_t count = size(3) * size(dim) * kKvBlock;
        const IndexKeys keys{allocate<float>(*side.backend, count), dim};
        const RopeTable rope{side.put(random_floats(200 * size(pairs) + 1, 1)),
                             side.put(random_floats(200 * size(pairs) + 1, 2)), pairs, halves};
        side.backend->index_write({.x = side.put(random_floats(4 * size(dim), 3, 3.0F)),
                                   .weight = side.put(random_floats(size(dim), 4)),
                                   .bias = side.put(random_floats(size(dim), 5)),
                                   .places = places.data(),
                                   .keys = keys,
                                   .rope = rope,
                                   .tokens = 4,
                                   .eps = 1e-6F});
        return side.get(keys.keys, count);
      };
      EXPECT_EQ(run(device_), run(cpu_)) << dim;
    }
  }
}

// Two sequences in one cache, with the last tokens of each.
struct Scored {
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<TokenPlace> places;
  std::vector<const std::int32_t*> table_of;
  int blocks = 0;

  Scored(int long_past, int short_past, int tokens) {
    for (const int past : {long_past, short_past}) {
      const int own = (past + kKvBlock - 1) / kKvBlock;
      tables.emplace_back(size(own));
      std::iota(tables.back().rbegin(), tables.back().rend(), blocks);
      blocks += own;
    }
    for (std::size_t s = 0; s < 2; ++s) {
      const int past = s == 0 ? long_past : short_past;
      for (int position = std::max(0, past - tokens); position < past; ++position) {
        places.push_back({position, tables[s][size(position / kKvBlock)]});
        table_of.push_back(tables[s].data());
      }
    }
  }
};

// The words of the tokens' pasts.
std::vector<std::uint64_t> selected(const Side& side, const Scored& past, int heads, int dim,
                                    int top_k, bool ties) {
  const auto tokens = static_cast<int>(past.places.size());
  auto keys = random_floats(size(past.blocks) * size(dim) * kKvBlock, 6);
  auto query = random_floats(size(tokens) * size(heads) * size(dim), 7);
  if (ties) {
    for (float& x : keys) x = std::round(x / 2);
    for (float& x : query) x = std::round(x / 2);
  }
  auto weights = random_floats(size(tokens) * size(heads), 8);
  const std::int64_t ld = static_cast<std::int64_t>(past.tables[0].size()) + 2;
  const std::size_t words = size(tokens) * size(ld);
  auto* selection = allocate<std::uint64_t>(*side.backend, words);
  side.backend->index_select(
      {.query = side.put(query),
       .weights = side.put(weights),
       .places = past.places.data(),
       .block_tables = past.table_of.data(),
       .keys = {side.put(keys), dim},
       .tokens = tokens,
       .heads = heads,
       .top_k = top_k,
       .scale = 0.125F,
       .scores = allocate<float>(*side.backend, size(kIndexRows) * size(ld) * kKvBlock),
       .ld_scores = ld * kKvBlock,
       .selection = {selection, ld}});
  const auto bits = side.get(reinterpret_cast<float*>(selection), words * 2);
  std::vector<std::uint64_t> found(words);
  std::memcpy(found.data(), bits.data(), words * sizeof(std::uint64_t));
  return found;
}

TEST_F(BackendTest, TheSelectionIsExact) {
  for (const auto& [heads, dim] : {std::pair{4, 16}, {64, 128}, {3, 256}}) {
    for (const int past : {1, 64, 65, 320, 1100}) {
      if (kEmulated && heads * past > 20000) continue;
      // More tokens than have scratch memory at a time.
      const Scored scored(past, std::min(past, 100), past == 320 && heads == 4 ? 70 : 3);
      for (const bool ties : {false, true}) {
        const auto wanted = selected(cpu_, scored, heads, dim, 64, ties);
        EXPECT_EQ(selected(device_, scored, heads, dim, 64, ties), wanted)
            << heads << " heads, past " << past << (ties ? ", ties" : "");
        int bits = 0;
        for (std::size_t b = 0; b < scored.tables[0].size() + 2; ++b) {
          bits += std::popcount(wanted[b]);
        }
        EXPECT_EQ(bits, std::min(64, scored.places[0].position + 1));
      }
    }
  }
}

// Latent attention of the last tokens of a past over what is selected; blocks in which nothing is
// are not numbers.
struct Sparse {
  static constexpr int kHeads = 8;
  static constexpr int kTokens = 6;
  static constexpr int kPast = 900;
  static constexpr int kBlocks = (kPast + kKvBlock - 1) / kKvBlock;
  std::vector<float> keys = random_floats(size(kBlocks) * 96 * kKvBlock, 9);
  std::vector<float> values = random_floats(size(kBlocks) * 64 * kKvBlock, 10);
  std::vector<float> query = random_floats(size(kTokens) * kHeads * 96, 11);
  std::vector<float> words = std::vector<float>(size(kTokens) * kBlocks * 2);  // as bits
  std::vector<std::int32_t> table = std::vector<std::int32_t>(kBlocks);

  Sparse() {
    std::iota(table.rbegin(), table.rend(), 0);
    std::mt19937_64 random(12);
    std::vector<std::uint64_t> bits(size(kTokens) * kBlocks);
    for (int t = 0; t < kTokens; ++t) {
      for (int b = 0; b < kBlocks; ++b) {
        std::uint64_t& word = bits[size(t * kBlocks + b)];
        if (b % 3 == 0 && b < 10) word = random() & random() & random();
        if (b == t) word |= 1;  // in blocks that other tokens leave out
      }
    }
    std::memcpy(words.data(), bits.data(), words.size() * sizeof(float));
    for (int b = 0; b < kBlocks; ++b) {
      if (b < kTokens || (b % 3 == 0 && b < 10)) continue;
      const auto block = size(table[size(b)]);
      const auto nan = std::numeric_limits<float>::quiet_NaN();
      std::fill_n(keys.begin() + static_cast<std::ptrdiff_t>(block * 96 * kKvBlock), 96 * kKvBlock,
                  nan);
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(block * 64 * kKvBlock),
                  64 * kKvBlock, nan);
    }
  }

  // Of tokens [begin, end).
  std::vector<float> attend(const Side& side, int begin, int end, int item_rows) const {
    std::vector<TokenPlace> places;
    for (int t = begin; t < end; ++t) places.push_back({kPast - kTokens + t, table.back()});
    std::vector<AttentionItem> items;
    const int rows = (end - begin) * kHeads;
    for (int at = 0; at < rows; at += item_rows) {
      items.push_back({at, std::min(rows, at + item_rows), table.data(), 0});
    }
    auto* bits = reinterpret_cast<std::uint64_t*>(side.put(words));
    auto* out = allocate<float>(*side.backend, size(rows) * 64);
    side.backend->attention({.query = side.put(query) + begin * kHeads * 96,
                             .out = out,
                             .places = places.data(),
                             .items = items.data(),
                             .item_count = static_cast<int>(items.size()),
                             .heads = kHeads,
                             .kv = {side.put(keys), side.put(values), 1, 96, 64},
                             .scale = 0.1F,
                             .selection = {bits + begin * kBlocks, kBlocks}});
    return side.get(out, size(rows) * 64);
  }
};

TEST_F(BackendTest, AttentionOverASelectionIsNear) {
  const Sparse sparse;
  const auto wanted = sparse.attend(cpu_, 0, Sparse::kTokens, 32);
  for (const int item_rows : {7, 16, 32}) {
    expect_near(sparse.attend(device_, 0, Sparse::kTokens, item_rows), wanted, 1e-5, "selection");
  }
}

TEST_F(BackendTest, ATokensSparseAttentionHasTheSameBitsAloneAndAmongOthers) {
  const Sparse sparse;
  const auto all = sparse.attend(device_, 0, Sparse::kTokens, 32);
  for (int t = 0; t < Sparse::kTokens; ++t) {
    const auto alone = sparse.attend(device_, t, t + 1, Sparse::kHeads);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                           all.begin() + std::ptrdiff_t{t} * Sparse::kHeads * 64))
        << "token " << t;
  }
}

}  // namespace
}  // namespace dsm::device
