// The operands of the deterministic mode's products of many rows beside those of product.cuh, on
// the CPU, and how such products are divided.
#include "kernels/cuda/product_exact.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "kernels/cuda/fragments.h"
#include "kernels/cuda/integer_fragments.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/stage_fixture.h"

namespace dsm::kernels::cuda {
namespace {

TEST(ExactStageTest, ASlotStandsForTheInputThatItHasInTheKernelsForFew) {
  for (int step = 0; step < kWideSteps; ++step) {
    for (int lane = 0; lane < 4; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int slot = i / 2 * 8 + 2 * lane + i % 2;  // mma.m16n8k16
        EXPECT_EQ(exact_input<false>(step, slot), first_input(step * kStepInputs, lane) + i);
        EXPECT_EQ(exact_input<true>(step, slot),
                  int4_input(step / 2 * kPairInputs, step % 2, lane) + i);
      }
    }
  }
}

// The same step's operands B of product.cuh, of a panel whose last input is before `end`.
template <DType kType>
FragmentB few_rows(const PackedMatrix& w, int step, int lane) {
  const int at = step * kStepInputs;
  const auto* words = static_cast<const std::uint32_t*>(w.data);
  if constexpr (kType == DType::kBF16) {
    return load_bf16(words, at, w.k, lane);
  } else if constexpr (kType == DType::kF8E4M3) {
    return operand(load_e4m3<4>(static_cast<const std::uint8_t*>(w.data), at, w.k, lane));
  } else if constexpr (kType == DType::kInt8) {
    return operand(load_int8(words, 0, at, w.k, lane));
  } else {
    return int4_operand(load_int4(words, 0, at - step % 2 * kStepInputs, w.k, lane), step % 2);
  }
}

// All lanes of a warpgroup, of stages that are whole and not.
template <DType kType>
void expect_the_same_operands() {
  for (const int k : {64, 128, 150, 9}) {
    const Packed panel = packed(kType, 0, k);
    for (int number = 0; number * kWideInputs < k; ++number) {
      const Stage<kType, ExactLayout<kType>> stage(panel.w, number);
      for (int column = 0; column < kPanel; column += 2) {
        for (int q = 0; q < 4; ++q) {
          ExactWeights got;
          const int left = k - number * kWideInputs;
          load_exact(stage.pieces, ExactLane<kType>::of(q, column), left, got);
          for (int step = 0; step < kWideSteps; ++step) {
            for (int i = 0; i < 4; ++i) {
              // Of inputs that are not there only BF16 has to have none.
              const int input = exact_input < kType == DType::kInt4 > (step, i / 2 * 8 + 2 * q);
              if (kType != DType::kBF16 && input + 1 >= left) continue;
              const int of = column + i % 2;
              const int lane = of % 32 / 4 * 4 + q;  // 4g + q
              const FragmentB wanted = few_rows<kType>(panel.w, number * kWideSteps + step, lane);
              ASSERT_EQ(got.v[step][i], wanted.v[of / 32 * 4 + of % 4][i / 2])
                  << "k " << k << " column " << of << " step " << step << " q " << q;
            }
          }
        }
      }
    }
  }
}

TEST(ExactStageTest, OperandsAreThoseOfTheKernelsForFew) {
  expect_the_same_operands<DType::kBF16>();
  expect_the_same_operands<DType::kF8E4M3>();
  expect_the_same_operands<DType::kInt8>();
  expect_the_same_operands<DType::kInt4>();
}

TEST(ExactStageTest, AWarpsLanesReadFromDifferentBanks) {
  const auto most = [](const auto& of_lane) {
    std::vector<std::set<int>> words(32);
    std::size_t all = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const int word = of_lane(lane) / 4;
      words[static_cast<std::size_t>(word % 32)].insert(word);
    }
    for (const auto& bank : words) all = std::max(all, bank.size());
    return all;
  };
  const auto first = [&]<DType kType>() {
    return most([](int lane) { return ExactLane<kType>::of(lane % 4, lane / 4 * 2).first; });
  };
  EXPECT_EQ(first.operator()<DType::kBF16>(), 1U);
  EXPECT_EQ(first.operator()<DType::kInt8>(), 1U);
  EXPECT_EQ(first.operator()<DType::kInt4>(), 1U);
}

TEST(ExactProductTest, SplitsThatBeginInAStageAreNotTaken) {
  const float scale = 1;
  EXPECT_TRUE(takes_exact({.dtype = DType::kBF16}));
  EXPECT_FALSE(takes_exact({.dtype = DType::kF32}));
  EXPECT_TRUE(takes_exact({.dtype = DType::kInt8, .scales = &scale}));
  EXPECT_FALSE(takes_exact({.dtype = DType::kInt8, .scales = &scale, .scale_phase = 64}));
}

TEST(ExactProductTest, SpansAreDividedWherePairsAreFew) {
  const auto spans_each = [](int n, int k, int rows) {
    const std::vector<ProductTask> tasks = {{.w = {.n = n, .k = k}, .rows = rows}};
    ProductPlan plan;
    plan_exact_products(tasks, 132, plan);
    EXPECT_EQ(plan.tile_rows, kExactRows);
    EXPECT_EQ(plan.spans, (k + 1023) / 1024);
    return plan.spans_each;
  };
  EXPECT_EQ(spans_each(4096, 14336, 64), 4) << "16 columns of pairs, 66 pairs";
  EXPECT_EQ(spans_each(6144, 4096, 64), 2) << "24 columns";
  EXPECT_EQ(spans_each(28672, 4096, 64), 4) << "112 columns";
  EXPECT_EQ(spans_each(4096, 14336, 2048), 14);
}

}  // namespace
}  // namespace dsm::kernels::cuda
