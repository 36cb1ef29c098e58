// Products of many rows by weights in integers and in FP8 in the loose mode, by the kernels that
// take weights in BF16 (kernels/cuda/product_wide.h), on the device that is there. A GPU that
// cannot run them takes its other kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/product_wide.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/many_rows_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr DType kScaled[] = {DType::kF8E4M3, DType::kInt8, DType::kInt4};

// A weight and an activation are rounded by up to 2^-8 of themselves each, and a product of both is
// about 0.1 here: so much of sums of k, whose roundings have either sign.
double bound(int k) {
  return 4e-3 * std::sqrt(k);
}

// Inputs from `first` on of a wider tensor.
Weight scaled_weight(int n, int k, int first, DType dtype, unsigned seed) {
  if (dtype == DType::kF8E4M3) return fp8_weight(n, k, first, seed);
  return integer_weight(n, k, first, dtype, seed);
}

std::string name_of(const Shape& shape, DType dtype, int first) {
  return "type " + std::to_string(static_cast<int>(dtype)) + " n " + std::to_string(shape.n) +
         " k " + std::to_string(shape.k) + " from " + std::to_string(first) + " rows " +
         std::to_string(shape.rows);
}

class WideTypesBackendTest : public BackendTest, public testing::WithParamInterface<KernelChoice> {
 protected:
  WideTypesBackendTest() {
    device_.backend =
        make_backend({.device = *find_device("auto"), .exact = false, .kernels = GetParam()});
  }

  void expect_near_the_cpu(const Shape& shape, DType dtype, int first, unsigned seed) {
    const Weight w = scaled_weight(shape.n, shape.k, first, dtype, seed);
    const bool adds = seed % 2 == 0;
    expect_near(linear(device_, w, shape, adds, seed), linear(cpu_, w, shape, adds, seed),
                bound(shape.k), name_of(shape, dtype, first));
  }
};

// Parts of a panel, of a thread block and of a stage, words that are not full, fewer stages than
// are copied ahead and more than turns of the ring, inputs that are divided among thread blocks;
// blocks of scales that begin with the first input, and in the middle.
TEST_P(WideTypesBackendTest, LinearIsNearForEveryTypeAndShape) {
  unsigned seed = 40;
  for (const DType dtype : kScaled) {
    for (const Shape& shape : {Shape{1, 1, 17}, Shape{100, 131, 65}, Shape{300, 90, 129},
                               Shape{520, 192, 33}, Shape{70, 1100, 64}, Shape{130, 2300, 17}}) {
      for (const int first : {0, 64}) {
        expect_near_the_cpu(shape, dtype, first, ++seed);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// So many rows that pairs of thread blocks take them: panels that a pair has not, rows that end
// within a tile, and more pieces than pairs. A GPU has processors for wider matrices.
TEST_P(WideTypesBackendTest, PromptsAreNearForEveryType) {
  const bool on_gpu = !kEmulated && device_.backend->name().starts_with("cuda/");
  unsigned seed = 80;
  for (const DType dtype : kScaled) {
    for (Shape shape : {Shape{700, 70, 512}, Shape{500, 331, 700}}) {
      if (on_gpu) shape = {shape.n + 3300, shape.k, 1000};
      EXPECT_TRUE(cuda::pairs_pay(shape.rows, (shape.rows + 255) / 256, (shape.n + 63) / 64,
                                  on_gpu ? 132 : 8));
      expect_near_the_cpu(shape, dtype, shape.k == 70 ? 64 : 0, ++seed);
      if (HasFatalFailure()) return;
    }
  }
}

// Gates of 32 columns beside what they gate, of tiles of each size.
TEST_P(WideTypesBackendTest, GatesAreBesideWhatTheyGate) {
  constexpr int kInputs = 160;
  const bool on_gpu = !kEmulated && device_.backend->name().starts_with("cuda/");
  const int n = on_gpu ? 4032 : 576;
  for (const DType dtype : kScaled) {
    for (const int rows : {40, 100, on_gpu ? 1000 : 520}) {
      const Weight w = scaled_weight(n, kInputs, 0, dtype, 91);
      const Group everyone{0, rows};
      std::vector<std::int32_t> token(size(rows));
      for (int t = 0; t < rows; ++t) token[size(t)] = t;
      const auto factors = random_floats(size(rows), 93, 0.3F);
      const auto run = [&](const Side& side) {
        const PackedMatrix packed = load(side, w);
        auto* h = allocate<float>(*side.backend, size(rows) * size(n / 2));
        side.backend->gate_up({.x = side.put(random_floats(size(rows) * kInputs, 92)),
                               .ldx = kInputs,
                               .token = token.data(),
                               .weight = factors.data(),
                               .groups = &everyone,
                               .w = &packed,
                               .group_count = 1,
                               .h = h,
                               .ldh = n / 2});
        return side.get(h, size(rows) * size(n / 2));
      };
      // Of products of two sums of up to 5, each within bound(kInputs).
      expect_near(run(device_), run(cpu_), 0.15, name_of({n, kInputs, rows}, dtype, 0));
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, WideTypesBackendTest,
                         testing::Values(KernelChoice{.many_rows = ManyRows::kKernel},
                                         all_kernels()));

// The other kernels add up in another order, so what comes out tells who has multiplied.
TEST(WideTypesChoiceTest, ManyRowsByIntegersAreTheKernelsUnlessScalesBeginAnywhere) {
  const auto side = [](const KernelChoice& kernels) {
    return Side{make_backend({.device = *find_device("auto"), .exact = false, .kernels = kernels})};
  };
  const Side chosen = side({});
  const Side others = side({.many_rows = ManyRows::kLibrary});
  const bool wide = chosen.backend->name().starts_with("cuda/") && kEmulated;
  for (const DType dtype : kScaled) {
    for (const int first : {0, 64, 77}) {
      for (const int rows : {16, 17, 520}) {
        const Shape shape{512, 192, rows};
        const Weight w = scaled_weight(shape.n, shape.k, first, dtype, 7);
        const bool same = linear(chosen, w, shape, false, 8) == linear(others, w, shape, false, 8);
        if (!wide) continue;  // which GPU this is is not known here
        EXPECT_EQ(same, rows == 16 || first == 77 || dtype == DType::kF8E4M3)
            << name_of(shape, dtype, first);
      }
    }
  }
}

}  // namespace
}  // namespace dsm::device
