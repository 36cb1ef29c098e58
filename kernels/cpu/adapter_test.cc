// What adapters ask of the operators: sums that begin at something, and products whose groups bring
// inputs of their own. Rows without an adapter keep their bits.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/cpu/pack.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

// A weight [n, k] in FP32.
struct Weight {
  Weight(int n, int k, unsigned seed)
      : values(
            random_floats(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), seed, 0.1F)),
        columns(k) {
    storage.resize(packed_bytes(DType::kF32, n, k));
    const WeightPiece whole = piece(n, 0, k);
    packed = pack({&whole, 1}, storage.data());
  }
  // Inputs [begin, begin + k) of all n.
  WeightPiece piece(int n, int begin, int k) const {
    return {.data = reinterpret_cast<const std::byte*>(values.data()),
            .dtype = DType::kF32,
            .n_stride = columns,
            .k_stride = 1,
            .n = n,
            .k = k,
            .origin = begin};
  }
  double at(int n, int k) const { return values[static_cast<std::size_t>(n * columns + k)]; }

  std::vector<float> values;
  int columns;
  std::vector<std::byte> storage;
  PackedMatrix packed;
};

class AdapterOps : public OnEveryTable {};

TEST_P(AdapterOps, LinearGoesOnFromWhatStandsThere) {
  for (const int n : {16, 40, 70, 130}) {
    const Weight w(n, 24, 1);
    const auto x = random_floats(5 * 24, 2);
    const auto before = random_floats(static_cast<std::size_t>(5 * n), 3);
    auto y = before;
    const LinearParams p{.x = x.data(),
                         .ldx = 24,
                         .w = &w.packed,
                         .y = y.data(),
                         .ldy = n,
                         .rows = 5,
                         .accumulate = true};
    for (int panel = 0; panel < panels_of(w.packed); ++panel) ops().linear(p, 0, 0, 5, panel);
    for (int r = 0; r < 5; ++r) {
      for (int j = 0; j < n; ++j) {
        const auto at = static_cast<std::size_t>(r * n + j);
        double wanted = before[at];
        for (int i = 0; i < 24; ++i) wanted += x[static_cast<std::size_t>(r * 24 + i)] * w.at(j, i);
        ASSERT_NEAR(y[at], wanted, 1e-5);
      }
    }
  }
}

TEST_P(AdapterOps, GateUpBeginsAtItsStartAndZerosChangeNoBit) {
  constexpr int kIn = 32;
  constexpr int kSlots = 3;
  const Weight w(kPanel, kIn, 4);  // 32 gates, then 32 ups
  const auto x = random_floats(kSlots * kIn, 5);
  const std::int32_t token[] = {0, 1, 2};
  const float weight[] = {1.0F, 1.0F, 1.0F};
  const Group group{0, kSlots};
  auto start = random_floats(kSlots * kPanel, 6);
  std::fill_n(start.begin() + kPanel, kPanel, 0.0F);  // the second slot has no adapter
  const auto run = [&](const float* from) {
    std::vector<float> h(kSlots * 32);
    ops().gate_up({.x = x.data(),
                   .ldx = kIn,
                   .token = token,
                   .weight = weight,
                   .groups = &group,
                   .w = &w.packed,
                   .group_count = 1,
                   .h = h.data(),
                   .ldh = 32,
                   .start = from,
                   .lds = kPanel},
                  0, 0, kSlots, 0);
    return h;
  };
  const auto plain = run(nullptr);
  const auto adapted = run(start.data());
  for (int s = 0; s < kSlots; ++s) {
    for (int j = 0; j < 32; ++j) {
      const auto at = static_cast<std::size_t>(s * 32 + j);
      double gate = start[static_cast<std::size_t>(s * kPanel + j)];
      double up = start[static_cast<std::size_t>(s * kPanel + 32 + j)];
      for (int i = 0; i < kIn; ++i) {
        gate += x[static_cast<std::size_t>(s * kIn + i)] * w.at(j, i);
        up += x[static_cast<std::size_t>(s * kIn + i)] * w.at(32 + j, i);
      }
      ASSERT_NEAR(adapted[at], gate / (1 + std::exp(-gate)) * up, 1e-5);
      if (s == 1) {
        ASSERT_EQ(adapted[at], plain[at]);
      }
    }
  }
}

// The parts of a weight that `ranks` ranks hold, from `first` segment on.
SegmentedMatrix segments(const Weight& w, int n, int first, int count,
                         std::vector<std::vector<std::byte>>& storage) {
  const int unit = w.columns / kSegments;
  SegmentedMatrix made;
  made.count = count;
  for (int s = 0; s < count; ++s) {
    const WeightPiece piece = w.piece(n, (first + s) * unit, unit);
    storage.emplace_back(packed_bytes(DType::kF32, n, unit));
    made.part[s] = pack({&piece, 1}, storage.back().data());
    made.offset[s] = s * unit;
  }
  return made;
}

// Tokens 1 and 2 have an adapter, whose inputs stand in two slots of their own.
std::vector<float> with_adapter(const Ops& ops, int ranks, bool adapted) {
  constexpr int kWidth = 48;
  constexpr int kOut = 80;
  constexpr int kTokens = 4;
  constexpr int kAdapterWidth = kSegments * 3;
  const Weight w(kOut, kWidth, 7);
  const Weight adapter(kOut, kAdapterWidth, 8);
  const auto h = random_floats(kTokens * kWidth, 9);
  const auto adapter_h = random_floats(2 * kAdapterWidth, 10);
  const std::vector<float> residual(kTokens * kOut, 0.5F);
  const std::int32_t token[] = {0, 1, 2, 3};
  const std::int32_t adapter_token[] = {1, 2};
  const Group all{0, kTokens};
  const Group two{0, 2};
  const int count = kSegments / ranks;
  std::vector<float> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::vector<std::byte>> storage;
    const SegmentedMatrix mine = segments(w, kOut, rank * count, count, storage);
    const SegmentedMatrix more = segments(adapter, kOut, rank * count, count, storage);
    std::vector<float> y(kTokens * kOut);
    RowParallelParams p{.h = h.data() + rank * kWidth / ranks,
                        .ldh = kWidth,
                        .token = token,
                        .groups = &all,
                        .w = &mine,
                        .group_count = 1,
                        .tokens = kTokens,
                        .residual = ranks == 1 ? residual.data() : nullptr,
                        .y = y.data(),
                        .ldy = kOut};
    if (adapted) {
      p.adapter_h = adapter_h.data() + rank * kAdapterWidth / ranks;
      p.adapter_ldh = kAdapterWidth;
      p.adapter_token = adapter_token;
      p.adapter_groups = &two;
      p.adapter_w = &more;
      p.adapter_count = 1;
    }
    for (int panel = 0; panel < panels_of(w.packed); ++panel) {
      ops.row_parallel(p, 0, kTokens, panel);
    }
    parts.insert(parts.end(), y.begin(), y.end());
  }
  if (ranks == 1) return parts;
  std::vector<float> sum = residual;
  const auto size = static_cast<std::int64_t>(sum.size());
  ops.tree_sum({parts.data(), ranks, size, sum.data(), sum.data()}, 0, size);
  return sum;
}

TEST_P(AdapterOps, RowParallelAdaptersHaveTheSameBitsForEveryNumberOfRanks) {
  const auto plain = with_adapter(ops(), 1, false);
  const auto adapted = with_adapter(ops(), 1, true);
  EXPECT_EQ(adapted, with_adapter(*available_ops()[0], 1, true));
  for (const int ranks : {2, 4, 8}) EXPECT_EQ(with_adapter(ops(), ranks, true), adapted) << ranks;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const bool has_adapter = i / 80 == 1 || i / 80 == 2;
    ASSERT_EQ(adapted[i] == plain[i], !has_adapter) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, AdapterOps, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
