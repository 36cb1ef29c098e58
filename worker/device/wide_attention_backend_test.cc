// Attention of prompts by the kernel for them, in the loose mode, on the device that is there,
// against the CPU's plain table. A GPU that cannot run it takes its other kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// Queries, keys, exponentials and values, which are a few units at most, are each rounded by up to
// 2^-9 of themselves.
constexpr double kBound = 2e-2;

// Consecutive tokens of a sequence of their own, `past` of which are in the cache already.
struct Prompt {
  int past;
  int tokens;
};

// Sequences in a cache that is written by the backend itself, and is no number elsewhere.
struct Sequences {
  const Side& side;
  int heads;  // query heads of a KV head
  std::vector<Prompt> runs;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<TokenPlace> places;  // of what attends
  KvLayer kv;

  Sequences(const Side& where, const KvLayer& shape, int query_heads, std::vector<Prompt> all)
      : side(where), heads(query_heads), runs(std::move(all)), kv(shape) {
    int longest = 0;
    std::int32_t blocks = 0;
    for (const auto& [past, tokens] : runs) {
      longest = std::max(longest, past + tokens);
      blocks += (past + tokens + kKvBlock - 1) / kKvBlock;
    }
    const std::size_t pieces = size(blocks) * size(kv.heads);
    kv.keys = no_numbers(pieces * size(key_block_bytes(kv)));
    kv.values = no_numbers(pieces * size(value_block_bytes(kv)));
    kv.key_scales =
        static_cast<float*>(no_numbers(pieces * size(key_scales_of(kv)) * kKvBlock * 4));
    kv.value_scales =
        static_cast<float*>(no_numbers(pieces * size(value_scales_of(kv)) * kKvBlock * 4));
    std::vector<TokenPlace> written;
    for (const auto& [past, tokens] : runs) {
      auto& table = tables.emplace_back();
      for (int at = 0; at < past + tokens; ++at) {
        if (at % kKvBlock == 0) table.push_back(--blocks);  // so that tables do not rise
        written.push_back({at, table.back()});
        if (at >= past) places.push_back(written.back());
      }
    }
    const std::int64_t ld = std::int64_t{kv.heads} * (kv.key_dim + kv.value_dim);
    const float* rows = side.put(random_floats(written.size() * size(ld), 1));
    const std::size_t angles = size(longest) * size(kv.key_dim) / 2;
    const RopeTable rope{side.put(random_floats(angles, 2)), side.put(random_floats(angles, 3)),
                         kv.key_dim / 2, true};
    side.backend->kv_write_heads({rows, rows + std::int64_t{kv.heads} * kv.key_dim, ld,
                                  written.data(), kv, rope, static_cast<int>(written.size())});
  }

  // `exact`: queries are BF16 values. `after`: out is the rows of a product by it, which is given
  // instead.
  std::vector<float> attend(float scale, bool exact, const Weight* after = nullptr) const {
    float* out = start(scale, exact, after != nullptr ? 1 : 0, RowsTaken::kAsTheyAre);
    if (after == nullptr) {
      return side.get(out, places.size() * size(kv.heads) * size(heads) * size(kv.value_dim));
    }
    const PackedMatrix w = load(side, *after);
    return multiply(out, w, {});
  }

  // The rows of a product in FP8, which are made as its operands if it `alone` reads them.
  std::vector<float> attend_rounded(float scale, const Weight& after, bool power_of_two,
                                    bool alone) const {
    const PackedMatrix w = load(side, after);
    float* out = start(scale, false, alone ? 1 : 0,
                       power_of_two ? RowsTaken::kRoundedByPowersOfTwo : RowsTaken::kRounded);
    const auto tokens = static_cast<int>(places.size());
    Fp8Rows fp8;
    if (side.backend->takes_fp8()) {
      fp8 = {allocate<std::uint8_t>(*side.backend, places.size() * size(w.k)),
             allocate<float>(*side.backend, places.size() * size(w.k / kScaleBlock)), w.k};
    }
    side.backend->quantise({.x = out,
                            .ldx = w.k,
                            .y = out,
                            .ldy = w.k,
                            .rows = tokens,
                            .width = w.k,
                            .power_of_two = power_of_two,
                            .y_fp8 = fp8,
                            .for_products = alone ? 1 : 0});
    return multiply(out, w, fp8);
  }

 private:
  std::vector<float> multiply(const float* x, const PackedMatrix& w, const Fp8Rows& fp8) const {
    auto* y = allocate<float>(*side.backend, places.size() * size(w.n));
    side.backend->linear({.x = x,
                          .ldx = w.k,
                          .w = &w,
                          .y = y,
                          .ldy = w.n,
                          .rows = static_cast<int>(places.size()),
                          .x_fp8 = fp8});
    return side.get(y, places.size() * size(w.n));
  }

  float* start(float scale, bool exact, int for_products, RowsTaken taken) const {
    std::vector<AttentionItem> items;
    int begin = 0;
    for (std::size_t s = 0; s < runs.size(); ++s) {
      const int end = begin + runs[s].tokens * heads;
      for (int h = 0; h < kv.heads; ++h) {
        for (int at = begin; at < end; at += kAttentionRows) {
          items.push_back({at, std::min(end, at + kAttentionRows), tables[s].data(), h});
        }
      }
      begin = end;
    }
    const std::size_t rows = places.size() * size(kv.heads) * size(heads);
    auto query = random_floats(rows * size(kv.key_dim), 4);
    if (exact) {
      for (float& q : query) q = std::round(q * 16) / 16;
    }
    auto* out = allocate<float>(*side.backend, rows * size(kv.value_dim));
    side.backend->attention({.query = side.put(query),
                             .out = out,
                             .places = places.data(),
                             .items = items.data(),
                             .item_count = static_cast<int>(items.size()),
                             .heads = heads,
                             .kv = kv,
                             .scale = scale,
                             .for_products = for_products,
                             .taken = taken});
    return out;
  }

  void* no_numbers(std::size_t bytes) const {
    void* to = side.backend->allocate(bytes);
    const std::vector<std::uint8_t> ones(bytes, 0xff);
    side.backend->write(to, ones.data(), bytes);
    return to;
  }
};

class WideAttentionBackendTest : public BackendTest {
 protected:
  // As kernels of warps do it.
  static Side by_warps() {
    return {make_backend({.device = *find_device("auto"),
                          .exact = false,
                          .kernels = {.many_rows = ManyRows::kLibrary}})};
  }

  void expect_near_cpus(const KvLayer& kv, int heads, const std::vector<Prompt>& runs,
                        float times = 1, bool exact = false) {
    const float scale = times / std::sqrt(static_cast<float>(kv.key_dim));
    const std::string what = "keys of " + std::to_string(kv.key_dim) + ", values of " +
                             std::to_string(kv.value_dim) + ", type " +
                             std::to_string(static_cast<int>(kv.dtype));
    const auto got = Sequences(loose_, kv, heads, runs).attend(scale, exact);
    expect_near(got, Sequences(cpu_, kv, heads, runs).attend(scale, exact), kBound, what);
    if (!kEmulated) return;
    // Its sums have an order of their own.
    EXPECT_NE(got, Sequences(by_warps(), kv, heads, runs).attend(scale, exact)) << what;
  }

  const Side loose_{make_backend({.device = *find_device("auto"), .exact = false})};
};

// Widths that fill a tile and others; one head of keys for each of the queries', too.
TEST_F(WideAttentionBackendTest, APromptIsNearForEveryWidth) {
  for (const auto& [heads, kv] :
       {std::pair{4, KvLayer{.heads = 2, .key_dim = 128, .value_dim = 128}},
        {4, KvLayer{.heads = 1, .key_dim = 64, .value_dim = 64}},
        {3, KvLayer{.heads = 2, .key_dim = 44, .value_dim = 48}},
        {2, KvLayer{.heads = 1, .key_dim = 32, .value_dim = 80}},
        {1, KvLayer{.heads = 2, .key_dim = 192, .value_dim = 128}},
        {2, KvLayer{.heads = 1, .key_dim = 160, .value_dim = 112}},
        {2, KvLayer{.heads = 1, .key_dim = 256, .value_dim = 128}}}) {
    // The last rows are no whole tile, and the last positions neither.
    expect_near_cpus(kv, heads, {{0, 330 / heads + 3}});
    if (HasFatalFailure()) return;
  }
}

TEST_F(WideAttentionBackendTest, APromptIsNearForEveryTypeOfCache) {
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int dim : {64, 128, 160}) {
      const int values = std::min(dim, 128);
      expect_near_cpus({.heads = 2, .key_dim = dim, .value_dim = values, .dtype = dtype}, 3,
                       {{75, 95}});
      if (HasFatalFailure()) return;
    }
  }
}

// Prompts that go on after a past of more tiles than are on their way at a time, whose tiles are
// packed one after the other; with them tokens that are decoded, and prompts that are too short.
TEST_F(WideAttentionBackendTest, SequencesSideBySideAreNear) {
  expect_near_cpus({.heads = 2, .key_dim = 128, .value_dim = 128}, 4,
                   {{0, 64}, {300, 1}, {640, 70}, {20, 20}, {63, 66}, {513, 127}});
}

// The two warpgroups of a thread block end with different tiles.
TEST_F(WideAttentionBackendTest, RowsEndWithDifferentTiles) {
  expect_near_cpus({.heads = 1, .key_dim = 64, .value_dim = 64}, 1, {{70, 256}, {0, 300}});
  expect_near_cpus({.heads = 1, .key_dim = 256, .value_dim = 64}, 1, {{30, 270}});
}

// More positions than are packed at a time, on the emulated GPU: the past is another kernel's.
TEST_F(WideAttentionBackendTest, APastThatIsTooLongIsNear) {
  expect_near_cpus({.heads = 1, .key_dim = 256, .value_dim = 128}, 4, {{896, 64}, {0, 64}});
}

// Scores far apart: maxima rise by more than sums have room for, and in both halves of a warp's
// rows at different tiles. Nothing is rounded before the exponentials.
TEST_F(WideAttentionBackendTest, SumsFollowMaximaThatRise) {
  expect_near_cpus({.heads = 1, .key_dim = 64, .value_dim = 64, .dtype = DType::kBF16}, 2,
                   {{600, 130}}, 64, true);
}

// What goes to the next product alone goes there as its rows: of several sequences, heads of one
// stage and of two, and where keys are as wide as values and wider.
TEST_F(WideAttentionBackendTest, OutputsAreRowsOfTheNextProduct) {
  for (const auto& [key, value] : {std::pair{64, 64}, {192, 128}}) {
    const KvLayer kv{.heads = 2, .key_dim = key, .value_dim = value};
    const std::vector<Prompt> runs = {{0, 300}, {70, 230}};
    const Weight w = plain_weight(40, 2 * 3 * value, DType::kBF16, 60);
    const float scale = 1 / std::sqrt(static_cast<float>(key));
    // Inputs are within kBound, and weights are about 0.1.
    const double bound = kBound * 0.1 * std::sqrt(w.piece.k);
    expect_near(Sequences(loose_, kv, 3, runs).attend(scale, false, &w),
                Sequences(cpu_, kv, 3, runs).attend(scale, false, &w), bound,
                "values of " + std::to_string(value));
  }
}

// The same rounded to FP8, with the bits of rows that are rounded and packed one after the other:
// heads with keys as wide as values and wider, of several sequences.
TEST_F(WideAttentionBackendTest, OutputsAreRoundedRowsOfTheNextProduct) {
  for (const int key : {128, 192}) {
    const KvLayer kv{.heads = 2, .key_dim = key, .value_dim = 128};
    const std::vector<Prompt> runs = {{0, 300}, {70, 230}};
    const Weight w = fp8_weight(40, 2 * 2 * 128, 0, 61);
    const float scale = 1 / std::sqrt(static_cast<float>(key));
    for (const bool power_of_two : {false, true}) {
      const auto run = [&](bool alone) {
        return Sequences(loose_, kv, 2, runs).attend_rounded(scale, w, power_of_two, alone);
      };
      EXPECT_EQ(run(true), run(false)) << "keys of " << key;
    }
  }
}

}  // namespace
}  // namespace dsm::device
