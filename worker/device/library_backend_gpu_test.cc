// Long prompts' products of the real cuBLASLt against the CPU's plain table, up to a bound. Skipped
// on a machine without the library.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/cublas_lt.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

std::vector<float> linear(const Side& side, const PackedMatrix& w, const std::vector<float>& x,
                          int rows) {
  auto* y = side.put(random_floats(size(rows) * size(w.n), 5));
  side.backend->linear({.x = side.put(x),
                        .ldx = w.k,
                        .w = &w,
                        .bias = side.put(random_floats(size(w.n), 6)),
                        .y = y,
                        .ldy = w.n,
                        .rows = rows,
                        .accumulate = true});
  return side.get(y, size(rows) * size(w.n));
}

TEST_F(BackendTest, ProductsOfManyRowsByTheLibraryAreNear) {
  const FoundCublasLt& library = cublas_lt();
  if (!library) GTEST_SKIP() << library.error();
  device_.backend = make_backend({.device = *find_device("auto"),
                                  .exact = false,
                                  .kernels = {.many_rows = ManyRows::kLibrary}});
  ASSERT_NE(device_.backend->name().find("long prompts by cuBLASLt"), std::string_view::npos)
      << device_.backend->name();
  unsigned seed = 30;
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const int k : {256, 1100}) {
      const Weight w = weight(200, k, dtype, ++seed);
      const PackedMatrix on_cpu = load(cpu_, w);
      const PackedMatrix on_device = load(device_, w);
      for (const int rows : {32, 100, 513}) {
        const auto x = random_floats(size(rows) * size(k), ++seed);
        // As loose_backend_test.cc has it.
        expect_near(linear(device_, on_device, x, rows), linear(cpu_, on_cpu, x, rows),
                    2e-3 * std::sqrt(k),
                    "k " + std::to_string(k) + " rows " + std::to_string(rows) + " type " +
                        std::to_string(static_cast<int>(dtype)));
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace dsm::device
