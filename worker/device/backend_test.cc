// Every operator of the device that is there, a GPU or else the CPU itself, against the CPU's plain
// table. Where the order of sums is the device's own, up to a bound; where it is not, to the bit. A
// row has the same bits alone and among others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/group_experts.h"
#include "worker/device/backend_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// A weight [n, k] as it stands in a checkpoint.
struct Weight {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  WeightPiece piece;
};

Weight plain_weight(int n, int k, DType dtype, unsigned seed) {
  Weight w;
  const auto values = random_floats(size(n) * size(k), seed, 0.1F);
  w.bytes.resize(values.size() * bytes_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(w.bytes.data() + 4 * i, &values[i], 4);
    } else {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      const auto half = static_cast<std::uint16_t>(bits >> 16);
      std::memcpy(w.bytes.data() + 2 * i, &half, 2);
    }
  }
  w.piece = {w.bytes.data(), dtype, k, 1, n, k};
  return w;
}

// Inputs from `first` on of a wider tensor in FP8 blocks.
Weight fp8_weight(int n, int k, int first, unsigned seed) {
  Weight w;
  std::mt19937 random(seed);
  const std::int64_t columns = first + k + 13;
  w.bytes.resize(size(n * columns));
  for (auto& byte : w.bytes) byte = std::byte(random() & 0xb7U);  // up to 0.47, no NaN
  const std::int64_t blocks = (n + 127) / 128 * ((columns + 127) / 128);
  w.scales = random_floats(size(blocks), seed + 1, 0.3F);
  w.piece = {w.bytes.data(),
             DType::kF8E4M3,
             columns,
             1,
             n,
             k,
             first,
             {reinterpret_cast<const std::byte*>(w.scales.data()), DType::kF32, 128, 128, columns}};
  return w;
}

// Inputs from `first` on of a wider tensor in BF16 that is rounded to integers.
Weight integer_weight(int n, int k, int first, DType dtype, unsigned seed) {
  const int columns = first + k + 13;
  Weight w = plain_weight(n, columns, DType::kBF16, seed);
  w.piece.k = k;
  w.piece.origin = first;
  w.piece.round_to = dtype;
  return w;
}

Weight weight(int n, int k, DType dtype, unsigned seed) {
  const int first = seed % 2 == 0 ? 0 : 77;  // inside of a block of scales
  if (dtype == DType::kF8E4M3) return fp8_weight(n, k, first, seed);
  if (is_integer(dtype)) return integer_weight(n, k, first, dtype, seed);
  return plain_weight(n, k, dtype, seed);
}

PackedMatrix load(const Side& side, const Weight& w) {
  const std::span<const WeightPiece> pieces(&w.piece, 1);
  const PackedMatrix packed = side.backend->reserve(pieces);
  // In parts, as the loader does.
  const int panels = panels_of(packed);
  for (int begin = 0; begin < panels; begin += 2) {
    EXPECT_TRUE(side.backend->pack_panels(pieces, packed, begin, std::min(panels, begin + 2)));
  }
  return packed;
}

constexpr DType kTypes[] = {DType::kBF16, DType::kF8E4M3, DType::kInt8, DType::kInt4, DType::kF32};

TEST_F(BackendTest, AllocatedMemoryIsZeroed) {
  for (const std::size_t count : {1, 1000, 1 << 20}) {
    const auto* data = allocate<float>(*device_.backend, count);
    EXPECT_EQ(device_.get(data, count), std::vector<float>(count, 0.0F));
    const auto* shared = allocate_shared<float>(*device_.backend, count);
    EXPECT_EQ(std::count(shared, shared + count, 0.0F), static_cast<std::ptrdiff_t>(count));
  }
}

TEST_F(BackendTest, DataIsTakenFromTheHostAndCleared) {
  const auto x = random_floats(1000, 32);
  const SharedMemory data = device_.backend->data_of(x.data(), x.size() * sizeof(float));
  const auto* from = reinterpret_cast<const float*>(data.get());
  EXPECT_EQ(device_.get(from, x.size()), x);
  auto* y = device_.put(x);
  device_.backend->clear(y + 10, 500);
  auto wanted = x;
  std::fill_n(wanted.begin() + 10, 500, 0.0F);
  EXPECT_EQ(device_.get(y, x.size()), wanted);
}

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

TEST_F(BackendTest, NormsAreNear) {
  for (const int width : {16, 128, 1536, 7168}) {
    const auto x = random_floats(size(9) * size(width + 5), 2, 3.0F);
    const auto weight = random_floats(size(width), 3);
    const std::vector<std::int32_t> index = {8, 0, 3};
    for (const bool indexed : {false, true}) {
      const int rows = indexed ? 3 : 9;
      const auto run = [&](const Side& side) {
        auto* y = allocate<float>(*side.backend, size(rows) * size(width));
        side.backend->rms_norm({side.put(x), width + 5, indexed ? index.data() : nullptr,
                                side.put(weight), y, width, rows, width, 1e-6F});
        return side.get(y, size(rows) * size(width));
      };
      expect_near(run(device_), run(cpu_), 2e-5, "width " + std::to_string(width));
    }
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

// y of a linear with what it may have, on rows `first` .. of x.
struct LinearCase {
  const Weight& w;
  const std::vector<float>& x;  // [rows, k + pad]
  int pad = 0;
  bool bias = false;
  bool accumulate = false;
};
std::vector<float> linear(const Side& side, const PackedMatrix& w, const LinearCase& c, int first,
                          int rows) {
  const std::int64_t ldx = w.k + c.pad;
  const std::int64_t ldy = w.n + 1;
  auto* y = side.put(random_floats(size(rows * ldy), 5));
  const auto bias = random_floats(size(w.n), 6);
  side.backend->linear({.x = side.put(c.x) + first * ldx,
                        .ldx = ldx,
                        .w = &w,
                        .bias = c.bias ? side.put(bias) : nullptr,
                        .y = y,
                        .ldy = ldy,
                        .rows = rows,
                        .accumulate = c.accumulate});
  return side.get(y, size(rows * ldy));
}

// Of a product with weights of about 0.1: 16 bits of an activation take part.
double product_bound(int k) {
  return 2e-5 * std::sqrt(k);
}

TEST_F(BackendTest, LinearIsNearForEveryShapeAndType) {
  unsigned seed = 10;
  for (const DType dtype : kTypes) {
    for (const int n : {1, 40, 64, 100, 300}) {
      for (const int k : {1, 31, 64, 300, 1024, 1100, 3000}) {
        if (kEmulated && n * k > 100 * 1100) continue;
        const Weight w = weight(n, k, dtype, ++seed);
        const PackedMatrix on_cpu = load(cpu_, w);
        const PackedMatrix on_device = load(device_, w);
        for (const int rows : {1, 15, 17, 70}) {
          const int pad = rows % 2 == 0 ? 0 : 3;
          const auto x = random_floats(size(rows) * size(k + pad), ++seed);
          const LinearCase c{w, x, pad, rows == 15, rows == 17};
          expect_near(linear(device_, on_device, c, 0, rows), linear(cpu_, on_cpu, c, 0, rows),
                      product_bound(k),
                      "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " +
                          std::to_string(rows) + " type " +
                          std::to_string(static_cast<int>(dtype)));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_F(BackendTest, ARowOfALinearHasTheSameBitsAloneAndAmongOthers) {
  unsigned seed = 500;
  for (const DType dtype : kTypes) {
    constexpr int kColumns = kEmulated ? 100 : 512;
    const Weight w = weight(kColumns, 3000, dtype, ++seed);
    const PackedMatrix packed = load(device_, w);
    const auto x = random_floats(size(200) * 3000, ++seed);
    const LinearCase c{w, x};
    const auto all = linear(device_, packed, c, 0, 200);
    for (const auto& [first, rows] : {std::pair{0, 1}, {77, 1}, {30, 16}, {150, 33}, {199, 1}}) {
      const auto some = linear(device_, packed, c, first, rows);
      for (int r = 0; r < rows; ++r) {
        constexpr int kLd = kColumns + 1;
        EXPECT_TRUE(std::equal(some.begin() + r * kLd, some.begin() + r * kLd + kColumns,
                               all.begin() + (first + r) * kLd))
            << "row " << first + r << " of " << rows;
      }
    }
  }
}

TEST_F(BackendTest, ABatchOfHeadsIsComputedInItsStrides) {
  constexpr int kHeads = 3;
  constexpr int kRows = 20;
  std::vector<Weight> w;
  for (unsigned h = 0; h < kHeads; ++h) w.push_back(weight(48, 32, DType::kBF16, 600 + h));
  const auto x = random_floats(size(kRows) * kHeads * 64, 7);
  const auto run = [&](const Side& side) {
    std::vector<PackedMatrix> packed;
    for (const Weight& head : w) packed.push_back(load(side, head));
    auto* y = allocate<float>(*side.backend, size(kRows) * kHeads * 50);
    side.backend->linear({.x = side.put(x),
                          .ldx = kHeads * 64,
                          .x_step = 64,
                          .w = packed.data(),
                          .y = y,
                          .ldy = kHeads * 50,
                          .y_step = 50,
                          .rows = kRows,
                          .batch = kHeads});
    return side.get(y, size(kRows) * kHeads * 50);
  };
  expect_near(run(device_), run(cpu_), product_bound(32), "heads");
}

// Rows of x rounded to FP8, times factors, and multiplied by w. Where a backend takes FP8, the same
// rows in FP32 are not numbers: nobody may have read them.
std::vector<float> fp8_linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                              const std::vector<float>& factor, bool power_of_two) {
  const auto rows = static_cast<int>(factor.size());
  auto* rounded = side.put(x);
  const std::int64_t ld = round_up(w.k + 1, kScaleBlock);
  Fp8Rows fp8;
  if (side.backend->takes_fp8()) {
    fp8 = {allocate<std::uint8_t>(*side.backend, size(rows * ld)),
           allocate<float>(*side.backend, size(rows * ld / kScaleBlock)), ld};
  }
  side.backend->quantise({.x = rounded,
                          .ldx = w.k,
                          .factor = factor.data(),
                          .y = rounded,
                          .ldy = w.k,
                          .rows = rows,
                          .width = w.k,
                          .power_of_two = power_of_two,
                          .y_fp8 = fp8});
  if (side.backend->takes_fp8()) {
    const std::vector<float> nothing(x.size(), std::numeric_limits<float>::quiet_NaN());
    side.backend->wait();
    side.backend->write(rounded, nothing.data(), nothing.size() * sizeof(float));
  }
  auto* y = allocate<float>(*side.backend, size(rows) * size(w.n));
  side.backend->linear(
      {.x = rounded, .ldx = w.k, .w = &w, .y = y, .ldy = w.n, .rows = rows, .x_fp8 = fp8});
  return side.get(y, size(rows) * size(w.n));
}

// What tensor cores keep of a sum of 128 products of FP8, 13 bits of the largest; the scales are
// applied in FP32 on both sides.
double fp8_bound(int k) {
  return 2e-4 * std::sqrt(k);
}

TEST_F(BackendTest, ProductsOfFp8ByFp8AreNear) {
  EXPECT_TRUE(!kEmulated || device_.backend->takes_fp8());
  unsigned seed = 900;
  for (const auto& [n, k] : {std::pair{64, 128}, {100, 300}, {40, 31}, {192, 1280}}) {
    const Weight w = fp8_weight(n, k, 0, ++seed);
    const PackedMatrix on_cpu = load(cpu_, w);
    const PackedMatrix on_device = load(device_, w);
    ASSERT_EQ(on_device.dtype, DType::kF8E4M3);
    for (const int rows : {1, 17, 70}) {
      if (kEmulated && rows * n * k > 17 * 192 * 1280) continue;
      const auto x = random_floats(size(rows) * size(k), ++seed);
      const auto factor = random_floats(size(rows), ++seed);
      for (const bool power_of_two : {false, true}) {
        expect_near(
            fp8_linear(device_, on_device, x, factor, power_of_two),
            fp8_linear(cpu_, on_cpu, x, factor, power_of_two), fp8_bound(k),
            "n " + std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(BackendTest, ARowOfAnFp8ProductHasTheSameBitsAloneAndAmongOthers) {
  constexpr int kInputs = 1300;
  constexpr int kRows = kEmulated ? 20 : 90;
  const Weight w = fp8_weight(128, kInputs, 0, 950);
  const PackedMatrix packed = load(device_, w);
  const auto x = random_floats(size(kRows) * kInputs, 951);
  const auto all = fp8_linear(device_, packed, x, std::vector<float>(kRows, 1.0F), false);
  for (const std::ptrdiff_t row : {0, kRows / 2, kRows - 1}) {
    const auto from = x.begin() + row * kInputs;
    const auto alone = fp8_linear(device_, packed, {from, from + kInputs}, {1.0F}, false);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * 128)) << row;
  }
}

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
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) {
      out.emplace_back();
      out.back().part[0] = load(side, w);
      out.back().count = 1;
    }
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
      for (const Weight& w : adapted->down) {
        more.emplace_back();
        more.back().part[0] = load(side, w);
        more.back().count = 1;
      }
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

TEST_F(BackendTest, ExpandedKeysAreExact) {
  const auto run = [&](const Side& side) {
    auto* keys = allocate<float>(*side.backend, size(3) * 24 * 64);
    side.backend->key_expand({.k = side.put(random_floats(size(64) * 3 * 16, 24)),
                              .rotated = side.put(random_floats(size(8) * 64, 25)),
                              .keys = keys,
                              .rows = 50,
                              .heads = 3,
                              .nope = 16,
                              .rope = 8});
    return side.get(keys, size(3) * 24 * 64);
  };
  EXPECT_EQ(run(device_), run(cpu_));
}

// Sequences over a cache whose slots that no position has written are not numbers.
struct Past {
  int heads;  // query heads of a KV head
  KvLayer shape;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<float> keys;
  std::vector<float> values;
  float scale;

  Past(const KvLayer& kv, int query_heads, const std::vector<int>& lengths)
      : heads(query_heads), shape(kv), scale(1.0F / std::sqrt(static_cast<float>(kv.key_dim))) {
    std::int32_t blocks = 0;
    for (const int length : lengths) blocks += (length + kKvBlock - 1) / kKvBlock;
    std::int32_t block = blocks;  // from the end, so that tables do not rise
    const auto nan = std::numeric_limits<float>::quiet_NaN();
    keys.assign(size(blocks) * size(kv.heads) * size(kv.key_dim) * kKvBlock, nan);
    values.assign(size(blocks) * size(kv.heads) * size(kv.value_dim) * kKvBlock, nan);
    std::mt19937 random(26);
    std::normal_distribution<float> normal;
    for (const int length : lengths) {
      tables.emplace_back();
      for (int at = 0; at < length; ++at) {
        if (at % kKvBlock == 0) tables.back().push_back(--block);
        for (int h = 0; h < kv.heads; ++h) {
          const std::size_t head = size(block) * size(kv.heads) + size(h);
          for (int d = 0; d < kv.key_dim; ++d) {
            keys[(head * size(kv.key_dim) + size(d)) * kKvBlock + size(at % kKvBlock)] =
                normal(random);
          }
          for (int d = 0; d < kv.value_dim; ++d) {
            values[(head * kKvBlock + size(at % kKvBlock)) * size(kv.value_dim) + size(d)] =
                normal(random);
          }
        }
      }
    }
  }

  // Consecutive tokens of a sequence.
  struct Run {
    std::size_t sequence;
    int first_position;
    int tokens;
  };
  // out [tokens, KV heads, heads, value_dim]; `query` in the order of runs.
  std::vector<float> attend(const Side& side, const std::vector<Run>& runs,
                            const std::vector<float>& query, int item_rows,
                            bool staged = false) const {
    std::vector<TokenPlace> places;
    std::vector<AttentionItem> items;
    for (const Run& run : runs) {
      const auto& table = tables[run.sequence];
      const auto begin = static_cast<int>(places.size()) * heads;
      for (int t = 0; t < run.tokens; ++t) {
        const int position = run.first_position + t;
        places.push_back({position, table[size(position / kKvBlock)]});
      }
      const auto end = static_cast<int>(places.size()) * heads;
      for (int h = 0; h < shape.heads; ++h) {
        for (int at = begin; at < end; at += item_rows) {
          items.push_back({at, std::min(end, at + item_rows), table.data(), h});
        }
      }
    }
    KvLayer kv = shape;
    kv.keys = side.put(keys);
    kv.values = side.put(values);
    if (staged) {
      std::vector<List> lists = {{places.data(), places.size() * sizeof places[0]}};
      for (const auto& table : tables) lists.push_back({table.data(), table.size() * 4});
      side.backend->stage(lists, items);
    }
    const std::size_t rows = places.size() * size(shape.heads) * size(heads);
    auto* out = allocate<float>(*side.backend, rows * size(shape.value_dim));
    side.backend->attention({side.put(query), out, places.data(), items.data(),
                             static_cast<int>(items.size()), heads, kv, scale});
    return side.get(out, rows * size(shape.value_dim));
  }
};

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
      expect_near(past.attend(device_, runs, query, item_rows), wanted, 1e-5,
                  "keys of " + std::to_string(kv.key_dim));
    }
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

TEST_F(BackendTest, TheRoutersChoiceIsExact) {
  constexpr int kTokens = 40;
  for (const auto& [experts, groups, topk_groups, top_k] :
       {std::array{8, 4, 2, 2}, {64, 1, 1, 6}, {160, 8, 3, 6}, {256, 8, 4, 8}}) {
    const std::int64_t ld = round_up(experts, 16);
    auto logits = random_floats(size(kTokens * ld), 29);
    // Few values, so that there are ties.
    for (std::size_t i = 0; i < logits.size() / 2; ++i) logits[i] = std::round(logits[i] * 2) / 2;
    const auto bias = random_floats(size(experts), 30, 0.1F);
    for (const RouterRule rule : {RouterRule::kSigmoidBias, RouterRule::kSoftmax}) {
      const auto run = [&](const Side& side, std::vector<std::int32_t>& chosen) {
        auto* to = allocate_shared<std::int32_t>(*side.backend, size(kTokens * top_k));
        auto* weights = allocate_shared<float>(*side.backend, size(kTokens * top_k));
        side.backend->router({.logits = side.put(logits),
                              .ld = ld,
                              .rule = rule,
                              .bias = side.put(bias),
                              .tokens = kTokens,
                              .experts = experts,
                              .groups = groups,
                              .topk_groups = topk_groups,
                              .top_k = top_k,
                              .normalise = rule == RouterRule::kSigmoidBias,
                              .scale = 2.5F,
                              .chosen = to,
                              .weights = weights});
        side.backend->wait();
        chosen.assign(to, to + kTokens * top_k);
        return std::vector<float>(weights, weights + kTokens * top_k);
      };
      std::vector<std::int32_t> on_device;
      std::vector<std::int32_t> on_cpu;
      const auto weights = run(device_, on_device);
      EXPECT_EQ(weights, run(cpu_, on_cpu));
      EXPECT_EQ(on_device, on_cpu);
    }
  }
}

// A router's choice for tokens of `top_k` of `experts` experts each, of which number 1 is left out,
// with what is made of it.
struct Routing {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
  int tokens;
  int experts;
  int top_k;

  Routing(int count, int of, int take) : tokens(count), experts(of), top_k(take) {
    std::mt19937 random(33);
    std::vector<std::int32_t> ids;
    for (std::int32_t e = 0; e < experts; ++e) {
      if (e != 1) ids.push_back(e);
    }
    for (int t = 0; t < tokens; ++t) {
      std::shuffle(ids.begin(), ids.end(), random);
      std::sort(ids.begin(), ids.begin() + top_k);
      chosen.insert(chosen.end(), ids.begin(), ids.begin() + top_k);
    }
    weights = random_floats(chosen.size(), 34);
  }

  GroupExpertsParams put(const Side& side) const {
    const std::size_t slots = size(tokens) * size(1 + top_k);
    auto* to = allocate<std::int32_t>(*side.backend, chosen.size());
    side.backend->write(to, chosen.data(), chosen.size() * sizeof chosen[0]);
    return {.chosen = to,
            .weights = side.put(weights),
            .tokens = tokens,
            .experts = experts,
            .top_k = top_k,
            .token = allocate<std::int32_t>(*side.backend, slots),
            .weight = allocate<float>(*side.backend, slots),
            .groups = allocate<Group>(*side.backend, size(1 + experts)),
            .slot = allocate<std::int32_t>(*side.backend, slots)};
  }

  // The groups made by the host.
  GroupExpertsParams lists(const Side& side) const {
    const std::size_t slots = size(tokens) * size(1 + top_k);
    const GroupExpertsParams p{.chosen = chosen.data(),
                               .weights = weights.data(),
                               .tokens = tokens,
                               .experts = experts,
                               .top_k = top_k,
                               .token = allocate_shared<std::int32_t>(*side.backend, slots),
                               .weight = allocate_shared<float>(*side.backend, slots),
                               .groups = allocate_shared<Group>(*side.backend, size(1 + experts)),
                               .slot = allocate_shared<std::int32_t>(*side.backend, slots)};
    kernels::group_experts(p);
    return p;
  }
};

// Integers are copied as the bits that they are.
std::vector<std::int32_t> integers(const Side& side, const void* from, std::size_t count) {
  const auto bits = side.get(static_cast<const float*>(from), count);
  std::vector<std::int32_t> values(count);
  std::memcpy(values.data(), bits.data(), count * sizeof values[0]);
  return values;
}

TEST_F(BackendTest, ExpertsAreGroupedAsOnTheCpu) {
  for (const auto& [tokens, experts, top_k] :
       {std::array{1, 8, 2}, {5, 64, 6}, {40, 160, 6}, {300, 256, 8}}) {
    const Routing routing(tokens, experts, top_k);
    const auto run = [&](const Side& side, bool half) {
      GroupExpertsParams p = routing.put(side);
      if (half) p.first_expert = p.experts /= 2;
      side.backend->group_experts(p);
      const std::size_t slots = size(tokens) * size(1 + top_k);
      std::vector<std::int32_t> all;
      for (const auto& [from, count] : {std::pair<const void*, std::size_t>{p.token, slots},
                                        {p.weight, slots},
                                        {p.groups, 2 * size(1 + experts)},
                                        {p.slot, slots}}) {
        const auto some = integers(side, from, count);
        all.insert(all.end(), some.begin(), some.end());
      }
      return all;
    };
    for (const bool half : {false, true}) {
      EXPECT_EQ(run(device_, half), run(cpu_, half)) << tokens << " tokens, half of them " << half;
    }
  }
}

// Experts whose groups the device has made: near the CPU's, and for each token the bits that it has
// alone.
struct RoutedExperts {
  static constexpr int kHidden = 96;
  static constexpr int kOut = 208;
  std::vector<Weight> gate_up;
  std::vector<Weight> down;

  RoutedExperts(int experts, DType dtype) {
    for (int e = 0; e <= experts; ++e) {
      // The shared expert is in BF16 and wider, and some checkpoints mix types among experts.
      const DType type = e == 0 || e == 3 ? DType::kBF16 : dtype;
      const auto seed = static_cast<unsigned>(900 + 2 * e);
      gate_up.push_back(dsm::device::weight(e == 0 ? 640 : 320, kHidden, type, seed));
      down.push_back(dsm::device::weight(kOut, e == 0 ? 300 : 144, type, seed));
    }
  }

  std::vector<float> run(const Side& side, const Routing& routing, const std::vector<float>& x,
                         bool by_host = false) const {
    std::vector<PackedMatrix> up;
    std::vector<SegmentedMatrix> out;
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) {
      out.emplace_back();
      out.back().part[0] = load(side, w);
      out.back().count = 1;
    }
    constexpr std::int64_t kStride = 320;
    const GroupExpertsParams p = by_host ? routing.lists(side) : routing.put(side);
    const std::size_t slots = size(p.tokens) * size(1 + p.top_k);
    auto* h = allocate<float>(*side.backend, slots * kStride);
    auto* y = side.put(random_floats(size(p.tokens) * kOut, 13));
    if (!by_host) side.backend->group_experts(p);
    side.backend->gate_up({.x = side.put(x),
                           .ldx = kHidden,
                           .token = p.token,
                           .weight = p.weight,
                           .groups = p.groups,
                           .w = up.data(),
                           .group_count = 1 + p.experts,
                           .h = h,
                           .ldh = kStride,
                           .routing = by_host ? nullptr : &p});
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
                                .routing = by_host ? nullptr : &p});
    return side.get(y, size(p.tokens) * kOut);
  }
};

TEST_F(BackendTest, RoutedExpertsAreNear) {
  for (const DType dtype : kTypes) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {1, 5, 40, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      // Of sums of up to 50.
      expect_near(experts.run(device_, routing, x), experts.run(cpu_, routing, x), 1e-3,
                  std::to_string(tokens) + " tokens");
    }
  }
}

TEST_F(BackendTest, ARoutedTokenHasTheSameBitsAloneAndAmongOthers) {
  const RoutedExperts experts(8, DType::kF8E4M3);
  const Routing many(130, 8, 3);
  const auto x = random_floats(size(130) * RoutedExperts::kHidden, 36);
  const auto all = experts.run(device_, many, x);
  Routing one = many;
  one.tokens = 1;
  one.chosen.resize(3);
  one.weights.resize(3);
  const auto alone = experts.run(device_, one, {x.begin(), x.begin() + RoutedExperts::kHidden});
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin()));
}

// So a row has the same bits with rows that have adapters beside it, for which the host makes the
// groups, and without.
TEST_F(BackendTest, ItMattersNotWhoHasMadeTheGroups) {
  for (const DType dtype : kTypes) {
    const RoutedExperts experts(8, dtype);
    for (const int tokens : {3, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 41);
      EXPECT_EQ(experts.run(device_, routing, x), experts.run(device_, routing, x, true)) << tokens;
    }
  }
}

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

// A result's memory is taken anew when more is wanted.
TEST_F(BackendTest, ResultsGrow) {
  Results results;
  float* few = results.at_least(*device_.backend, 10);
  few[9] = 1;
  EXPECT_EQ(results.at_least(*device_.backend, 5), few);
  float* many = results.at_least(*device_.backend, 100000);
  many[99999] = 2;
  const auto x = random_floats(100000, 31);
  device_.backend->copy(many, device_.put(x), x.size());
  device_.backend->wait();
  EXPECT_TRUE(std::equal(x.begin(), x.end(), many));
}

}  // namespace
}  // namespace dsm::device
