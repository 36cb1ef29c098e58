#include "kernels/cuda/emulation/tensor_core.h"

#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cuda/emulation/block.h"
#include "kernels/cuda/emulation/races.h"

namespace dsm::emulation {
namespace {

constexpr int kRows = 16;
constexpr int kColumns = 8;

std::atomic<bool> falling{false};

float bf16(std::uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

float e4m3(unsigned bits) {
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  const auto exponent = static_cast<int>(bits >> 3 & 15U);
  const auto fraction = static_cast<float>(bits & 7U);
  if ((bits & 0x7fU) == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
  return sign *
         (exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8.0F + fraction, exponent - 10));
}
const std::array<float, 256>& e4m3_values() {
  static const auto values = [] {
    std::array<float, 256> all;
    for (unsigned i = 0; i < 256; ++i) all[i] = e4m3(i);
    return all;
  }();
  return values;
}

// kPacked values stand in a register. Lane 4g + q holds of a register's values the inputs from
// q kPacked on, or 4 kPacked further.
template <int kPacked, class Value>
void multiply(void* const (&lanes)[32], unsigned taking_part, const Value& value) {
  if (taking_part != 0xffffffffU) fail("a tensor core's product without all lanes");
  constexpr int kInputs = 8 * kPacked;
  float a[kRows][kInputs];
  float b[kInputs][kColumns];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const LaneOperands*>(lanes[lane]);
    const int g = lane / 4;
    const int first = lane % 4 * kPacked;
    for (int i = 0; i < kPacked; ++i) {
      for (int r = 0; r < 4; ++r) {
        a[g + r % 2 * 8][first + r / 2 * 4 * kPacked + i] = value(mine.a[r], i);
      }
      for (int r = 0; r < 2; ++r) b[first + r * 4 * kPacked + i][g] = value(mine.b[r], i);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    const auto d = [&](int column) -> float& {
      const auto& owner = *static_cast<const LaneOperands*>(lanes[row % 8 * 4 + column / 2]);
      return owner.d[row / 8 * 2 + column % 2];
    };
    float sums[kColumns];
    for (int column = 0; column < kColumns; ++column) sums[column] = d(column);
    for (int input = 0; input < kInputs; ++input) {
      for (int column = 0; column < kColumns; ++column) {
        sums[column] += a[row][input] * b[input][column];
      }
    }
    for (int column = 0; column < kColumns; ++column) d(column) = sums[column];
  }
}

// Chunk i of a step's two in a row of 128 bytes.
const unsigned char* chunk_of(const WarpgroupOperands& its, int row, int i) {
  return static_cast<const unsigned char*>(its.shared) + row * 128 +
         ((its.step * 2 + i) ^ (row % 8)) * 16;
}

void tell_of(const WarpgroupOperands& its) {
  if (watching == nullptr) return;
  std::vector<const void*> chunks;
  for (int row = 0; row < its.rows; ++row) {
    for (int i = 0; i < 2; ++i) chunks.push_back(chunk_of(its, row, i));
  }
  watching->multiply(chunks, 16, its.place);
}

// A warp's lines of a warpgroup's product. kPacked values stand in a register, as in multiply().
template <int kPacked, class Value>
void multiply_by_shared(void* const (&lanes)[32], unsigned taking_part, const Value& value) {
  if (taking_part != 0xffffffffU) fail("a tensor core's product without all lanes");
  constexpr int kInputs = 8 * kPacked;
  constexpr std::size_t kBytes = 4 / kPacked;
  const auto& first = *static_cast<const WarpgroupOperands*>(lanes[0]);
  if (reinterpret_cast<std::uintptr_t>(first.shared) % 1024 != 0) fail("rows that are not aligned");
  float a[kRows][kInputs];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const WarpgroupOperands*>(lanes[lane]);
    if (mine.shared != first.shared || mine.step != first.step) fail("lanes with other rows");
    for (int r = 0; r < 4; ++r) {
      for (int i = 0; i < kPacked; ++i) {
        a[lane / 4 + r % 2 * 8][lane % 4 * kPacked + r / 2 * 4 * kPacked + i] = value(mine.a[r], i);
      }
    }
  }
  tell_of(first);
  const bool backwards = falling.load(std::memory_order_relaxed);
  for (int row = 0; row < first.rows; ++row) {
    float b[kInputs];
    for (int input = 0; input < kInputs; ++input) {
      const int byte = input * static_cast<int>(kBytes);
      std::uint32_t bits = 0;
      std::memcpy(&bits, chunk_of(first, row, byte / 16) + byte % 16, kBytes);
      b[input] = value(bits, 0);
    }
    for (int line = 0; line < kRows; ++line) {
      const auto& owner = *static_cast<const WarpgroupOperands*>(lanes[line % 8 * 4 + row % 8 / 2]);
      float& sum = owner.d[row / 8 * 4 + line / 8 * 2 + row % 2];
      for (int i = 0; i < kInputs; ++i) {
        const int input = backwards ? kInputs - 1 - i : i;
        sum += a[line][input] * b[input];
      }
    }
  }
}

float value_of_bf16(std::uint32_t pair, int i) {
  return bf16(pair >> 16 * i & 0xffffU);
}
float value_of_e4m3(std::uint32_t four, int i) {
  return e4m3_values()[four >> 8 * i & 0xffU];
}

}  // namespace

void multiply_bf16(void* const (&lanes)[32], unsigned taking_part) {
  multiply<2>(lanes, taking_part, value_of_bf16);
}

void multiply_e4m3(void* const (&lanes)[32], unsigned taking_part) {
  multiply<4>(lanes, taking_part, value_of_e4m3);
}

void multiply_shared_rows(void* const (&lanes)[32], unsigned taking_part) {
  multiply_by_shared<2>(lanes, taking_part, value_of_bf16);
}

void multiply_shared_e4m3(void* const (&lanes)[32], unsigned taking_part) {
  multiply_by_shared<4>(lanes, taking_part, value_of_e4m3);
}

OtherOrder::OtherOrder() {
  falling.store(true);
}
OtherOrder::~OtherOrder() {
  falling.store(false);
}

void transpose_matrices(void* const (&lanes)[32], unsigned taking_part) {
  if (taking_part != 0xffffffffU) fail("a load of matrices without all lanes");
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const MatrixLines*>(lanes[lane]);
    for (int m = 0; m < 4; ++m) {
      std::uint32_t v = 0;
      for (int i = 0; i < 2; ++i) {
        const void* line = static_cast<const MatrixLines*>(lanes[8 * m + lane % 4 * 2 + i])->line;
        if (reinterpret_cast<std::uintptr_t>(line) % 16 != 0) fail("a line that is not aligned");
        std::uint16_t bytes = 0;
        std::memcpy(&bytes, static_cast<const unsigned char*>(line) + lane / 4 * 2, sizeof bytes);
        v |= std::uint32_t{bytes} << 16 * i;
      }
      mine.v[m] = v;
    }
  }
}

}  // namespace dsm::emulation
