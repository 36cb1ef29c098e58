// Rows that only the next products read, in FP8, in the loose mode on the device that is there:
// whoever makes them gives the bits of rows that are made, rounded and packed one after the other.
// A GPU that cannot keep them as operands does just that.
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr int kRows = 520;  // the last tile is nearly empty

class HeldFp8BackendTest : public BackendTest {
 protected:
  HeldFp8BackendTest() { use({}); }
  void use(const KernelChoice& kernels) {
    device_.backend =
        make_backend({.device = *find_device("auto"), .exact = false, .kernels = kernels});
  }

  // From 9.0 on, in the loose mode.
  bool holds() const { return device_.backend->takes_fp8(); }

  // Bytes that no rounding gives, with the scales: none are written where rows are held.
  Fp8Rows no_rows(int width) const {
    if (!holds()) return {};
    const std::int64_t ld = round_up(width, kScaleBlock);
    const std::vector<std::uint8_t> bytes(size(kRows * ld), kNoNumber);
    const Fp8Rows to{allocate<std::uint8_t>(*device_.backend, bytes.size()),
                     device_.put(std::vector<float>(bytes.size() / kScaleBlock, 1.0F)), ld};
    device_.backend->write(to.values, bytes.data(), bytes.size());
    return to;
  }
  void expect_untouched(const Fp8Rows& rows) const {
    if (!holds()) return;
    auto* seen = allocate_shared<float>(*device_.backend, size(kRows * rows.ld) / 4);
    device_.backend->copy(seen, reinterpret_cast<const float*>(rows.values),
                          size(kRows * rows.ld) / 4);
    device_.backend->wait();
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(seen);
    EXPECT_EQ(std::vector(bytes, bytes + kRows * rows.ld),
              std::vector(size(kRows * rows.ld), kNoNumber));
  }

  static constexpr std::uint8_t kNoNumber = 0x7f;
};

RowsTaken taken(bool power_of_two) {
  return power_of_two ? RowsTaken::kRoundedByPowersOfTwo : RowsTaken::kRounded;
}

// A norm, and two products of what it gives; widths of whole stages and others, of more fours than
// a thread block has threads.
TEST_F(HeldFp8BackendTest, ANormGivesTheRowsOfItsProducts) {
  for (const int width : {144, 256, 4240}) {
    if (!holds() && width > 256) continue;
    for (const bool power_of_two : {false, true}) {
      const Weight weights[] = {fp8_weight(70, width, 0, 300), fp8_weight(33, width, 0, 301)};
      const auto x = random_floats(size(kRows) * size(width), 302);
      const auto gain = random_floats(size(width), 303);
      const auto run = [&](bool alone) {
        Backend& backend = *device_.backend;
        auto* normed = allocate<float>(backend, x.size());
        auto* rounded = allocate<float>(backend, x.size());
        backend.rms_norm({.x = device_.put(x),
                          .ldx = width,
                          .weight = device_.put(gain),
                          .y = normed,
                          .ldy = width,
                          .rows = kRows,
                          .width = width,
                          .eps = 1e-6F,
                          .for_products = alone ? 2 : 0,
                          .taken = taken(power_of_two)});
        std::vector<float> all;
        for (const Weight& weight : weights) {
          const Fp8Rows fp8 = no_rows(width);
          backend.quantise({.x = normed,
                            .ldx = width,
                            .y = rounded,
                            .ldy = width,
                            .rows = kRows,
                            .width = width,
                            .power_of_two = power_of_two,
                            .y_fp8 = fp8,
                            .for_products = alone ? 1 : 0});
          const PackedMatrix w = load(device_, weight);
          auto* y = allocate<float>(backend, size(kRows) * size(w.n));
          backend.linear({.x = rounded,
                          .ldx = width,
                          .w = &w,
                          .y = y,
                          .ldy = w.n,
                          .rows = kRows,
                          .x_fp8 = fp8});
          for (const float v : device_.get(y, size(kRows) * size(w.n))) all.push_back(v);
          if (alone) expect_untouched(fp8);
        }
        return all;
      };
      EXPECT_EQ(run(true), run(false)) << "width " << width;
    }
  }
}

// SwiGLU and the product of what it gives, whose inputs are fewer than SwiGLU's columns: by pairs
// of thread blocks, which round it where they make it, several pieces one after the other, of which
// the last has panels for one block, or for one warpgroup; and by the kernel for many rows, which
// does not.
TEST_F(HeldFp8BackendTest, SwigluGivesTheRowsOfItsProduct) {
  constexpr int kHidden = 144;
  for (const int width : {200, 256, 410, 600}) {
    use(width == 200 || width == 256 ? KernelChoice{} : all_kernels());
    const auto ldh = static_cast<int>(round_up(width, 32));
    const Weight up = fp8_weight(2 * ldh, kHidden, 0, 310);
    const Weight down = fp8_weight(70, width, 0, 311);
    const auto x = random_floats(size(kRows) * kHidden, 312);
    std::vector<std::int32_t> token(size(kRows));
    for (int t = 0; t < kRows; ++t) token[size(t)] = t;
    const auto factors = random_floats(size(kRows), 313);
    const Group everyone{0, kRows};
    for (const bool power_of_two : {false, true}) {
      const auto run = [&](bool alone) {
        Backend& backend = *device_.backend;
        float* from = device_.put(x);
        auto* h = allocate<float>(backend, size(kRows) * size(ldh));
        const Fp8Rows x_fp8 = no_rows(kHidden);
        const Fp8Rows h_fp8 = no_rows(width);
        const auto round = [&](float* rows, int ld, int inputs, const Fp8Rows& to) {
          backend.quantise({.x = rows,
                            .ldx = ld,
                            .y = rows,
                            .ldy = ld,
                            .rows = kRows,
                            .width = inputs,
                            .power_of_two = power_of_two,
                            .y_fp8 = to,
                            .for_products = alone ? 1 : 0});
        };
        const PackedMatrix of_up = load(device_, up);
        const SegmentedMatrix of_down = load_whole(device_, down);
        round(from, kHidden, kHidden, x_fp8);
        backend.gate_up({.x = from,
                         .ldx = kHidden,
                         .token = token.data(),
                         .weight = factors.data(),
                         .groups = &everyone,
                         .w = &of_up,
                         .group_count = 1,
                         .h = h,
                         .ldh = ldh,
                         .x_fp8 = x_fp8,
                         .for_products = alone ? 1 : 0,
                         .taken = taken(power_of_two)});
        round(h, ldh, width, h_fp8);
        auto* y = allocate<float>(backend, size(kRows) * 70);
        backend.row_parallel({.h = h,
                              .ldh = ldh,
                              .token = token.data(),
                              .groups = &everyone,
                              .w = &of_down,
                              .group_count = 1,
                              .tokens = kRows,
                              .y = y,
                              .ldy = 70,
                              .h_fp8 = h_fp8});
        auto all = device_.get(y, size(kRows) * 70);
        if (alone) {
          expect_untouched(x_fp8);
          expect_untouched(h_fp8);
        }
        return all;
      };
      EXPECT_EQ(run(true), run(false)) << "width " << width;
    }
  }
}

TEST_F(HeldFp8BackendTest, RowsAreHeldForNoOtherProduct) {
  const Weight weight = fp8_weight(64, 128, 0, 320);
  const PackedMatrix w = load(device_, weight);
  auto* x = device_.put(random_floats(size(kRows) * 128, 321));
  auto* y = allocate<float>(*device_.backend, size(kRows) * 128);
  const Fp8Rows fp8 = no_rows(128);
  const auto norm = [&] {
    device_.backend->rms_norm({.x = x,
                               .ldx = 128,
                               .weight = x,
                               .y = y,
                               .ldy = 128,
                               .rows = kRows,
                               .width = 128,
                               .eps = 1e-6F,
                               .for_products = 1,
                               .taken = RowsTaken::kRounded});
  };
  const auto multiply = [&](const float* from) {
    device_.backend->linear(
        {.x = from, .ldx = 128, .w = &w, .y = y, .ldy = 128, .rows = kRows, .x_fp8 = fp8});
  };
  norm();
  if (!holds()) {
    EXPECT_NO_THROW(multiply(y));
    return;
  }
  EXPECT_THROW(multiply(y), std::logic_error) << "they have not been rounded";
  EXPECT_THROW(norm(), std::logic_error) << "nobody has read them";
  device_.backend->stage({}, {});  // the next step
  EXPECT_NO_THROW(multiply(x));
}

}  // namespace
}  // namespace dsm::device
