// Products with weights in integers on a CPU, whose rows are made integers of once for all columns:
// the bits of the table that is asked for part by part, whatever the instructions, the number of
// rows, how they are divided and who is beside them.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cpu/integer_ops.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/cpu_backend.h"
#include "worker/device/routing_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr DType kIntegers[] = {DType::kInt8, DType::kInt4};

Side side_with(const Ops& ops, int threads) {
  return {make_cpu_backend(threads, ops)};
}

// y = x w, with a bias, by a backend.
std::vector<float> linear(const Side& side, const Weight& w, const std::vector<float>& x, int rows,
                          int first) {
  const PackedMatrix packed = load(side, w);
  auto* y = allocate<float>(*side.backend, size(rows) * size(packed.n));
  side.backend->linear({.x = side.put(x) + std::int64_t{first} * packed.k,
                        .ldx = packed.k,
                        .w = &packed,
                        .y = y,
                        .ldy = packed.n,
                        .rows = rows});
  return side.get(y, size(rows) * size(packed.n));
}

TEST(IntegerBackendTest, LinearHasTheBitsOfThePlainTableForEveryNumberOfRows) {
  const Side plain = side_with(*available_ops()[0], 1);
  for (const DType dtype : kIntegers) {
    for (const int first : {0, 77}) {
      const Weight w = integer_weight(330, 300, first, dtype, 7);
      const auto x = random_floats(size(200) * 300, 8);
      const auto wanted = [&] {
        const PackedMatrix packed = load(plain, w);
        std::vector<float> y(size(200) * 330);
        const LinearParams p{
            .x = x.data(), .ldx = 300, .w = &packed, .y = y.data(), .ldy = 330, .rows = 200};
        for (int panel = 0; panel < panels_of(packed); ++panel) {
          available_ops()[0]->linear(p, 0, 0, 200, panel);
        }
        return y;
      }();
      for (const Ops* ops : available_ops()) {
        for (const int threads : {1, 3}) {
          const Side side = side_with(*ops, threads);
          for (const int rows : {1, 3, 6, 16, 65, 200}) {
            const auto got = linear(side, w, x, rows, 200 - rows);
            EXPECT_TRUE(std::equal(got.begin(), got.end(), wanted.end() - std::ssize(got)))
                << ops->name << ", " << rows << " rows, " << threads << " threads";
          }
        }
      }
    }
  }
}

// Of 8 experts one is nobody's; one and the shared one are in BF16, or in integers like the others.
TEST(IntegerBackendTest, ExpertsHaveTheSameBitsInEveryTable) {
  for (const DType dtype : {DType::kInt8, DType::kInt4, DType::kBF16}) {
    const bool all = dtype == DType::kBF16;
    RoutedExperts experts(8, all ? DType::kInt8 : dtype);
    for (const int e : {0, 3}) {
      if (!all) break;
      experts.gate_up[size(e)] =
          weight(e == 0 ? 640 : 320, RoutedExperts::kHidden, DType::kInt8, 51);
      experts.down[size(e)] = weight(RoutedExperts::kOut, e == 0 ? 300 : 144, DType::kInt8, 53);
    }
    for (const int tokens : {1, 5, 60, 130}) {
      const Routing routing(tokens, 8, 3);
      const auto x = random_floats(size(tokens) * RoutedExperts::kHidden, 35);
      const auto wanted = experts.run(side_with(*available_ops()[0], 1), routing, x);
      for (const Ops* ops : available_ops()) {
        EXPECT_EQ(experts.run(side_with(*ops, 2), routing, x), wanted)
            << ops->name << ", " << tokens << " tokens";
      }
    }
  }
}

}  // namespace
}  // namespace dsm::device
