// How a GPU is asked whether both its kernels of the deterministic mode add alike: on the emulated
// one, whose tensor cores can be made to.
#include "worker/device/same_bits.h"

#include <gtest/gtest.h>

#include <memory>

#include "kernels/cuda/emulation/tensor_core.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

std::unique_ptr<Backend> backend(bool wide) {
  return make_backend(
      {.device = *find_device("cuda"), .kernels = {.wide_exact_from = wide ? 1 : 0}});
}

TEST(SameBitsTest, ThereIsNoDifferenceWhereBothAddInTheSameOrder) {
  EXPECT_EQ(different_bits(*backend(false), *backend(true)), "");
}

TEST(SameBitsTest, AnotherOrderWithinAStepIsFound) {
  const emulation::OtherOrder falling;
  const std::string difference = different_bits(*backend(false), *backend(true));
  EXPECT_NE(difference.find("by the kernel for few rows"), std::string::npos) << difference;
  // It is the kernel for many rows alone that it changes.
  EXPECT_EQ(different_bits(*backend(false), *backend(false)), "");
}

// So it tells who multiplies.
TEST(SameBitsTest, TheKernelForManyRowsTakesAProductFrom17RowsOnIfItIsAskedFor) {
  constexpr int kInputs = 200;
  constexpr int kColumns = 64;
  for (const int rows : {16, 17}) {
    const auto run = [&](bool wide) {
      const Side side{backend(wide)};
      const Weight w = plain_weight(kColumns, kInputs, kernels::DType::kBF16, 3);
      const kernels::PackedMatrix packed = load(side, w);
      auto* y = allocate<float>(*side.backend, size(rows) * kColumns);
      side.backend->linear({.x = side.put(random_floats(size(rows) * kInputs, 4)),
                            .ldx = kInputs,
                            .w = &packed,
                            .y = y,
                            .ldy = kColumns,
                            .rows = rows});
      return side.get(y, size(rows) * kColumns);
    };
    for (const bool wide : {false, true}) {
      const auto rising = run(wide);
      const emulation::OtherOrder falling;
      EXPECT_EQ(run(wide) == rising, !wide || rows == 16) << rows << " rows";
    }
  }
}

}  // namespace
}  // namespace dsm::device
