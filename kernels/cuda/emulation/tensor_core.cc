#include "kernels/cuda/emulation/tensor_core.h"

#include <array>
#include <atomic>
#include <bit>
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

constexpr float e4m3(std::uint32_t bits) {
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  const std::uint32_t exponent = bits >> 3 & 15U;
  const std::uint32_t fraction = bits & 7U;
  if ((bits & 0x7fU) == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-9F;
  return sign * std::bit_cast<float>((exponent + 120) << 23 | fraction << 20);
}
constexpr std::array<float, 256> kE4m3 = [] {
  std::array<float, 256> all{};
  for (std::uint32_t i = 0; i < 256; ++i) all[i] = e4m3(i);
  return all;
}();

// Value i of a register's `kPacked`.
template <int kPacked>
float value(std::uint32_t bits, int i) {
  if constexpr (kPacked == 2) {
    return bf16(bits >> 16 * i & 0xffffU);
  } else {
    return kE4m3[bits >> 8 * i & 0xffU];
  }
}

// A warp's 16 rows of D and of A, column by column; all sums of a column at once, each in its
// order.
constexpr int kTogether = 8;
using Part [[gnu::vector_size(kTogether * sizeof(float))]] = float;
using Column = Part[kRows / kTogether];

}  // namespace

// D += A B, with `inputs` values of each of B's columns one after the other.
[[gnu::target_clones("avx2", "default")]]
void add_products(Column* d, int columns, const Column* a, const float* b, int inputs,
                  bool backwards) {
  for (int column = 0; column < columns; ++column) {
    Part low = d[column][0];
    Part high = d[column][1];
    for (int i = 0; i < inputs; ++i) {
      const int input = backwards ? inputs - 1 - i : i;
      const float factor = b[column * inputs + input];
      low += a[input][0] * factor;
      high += a[input][1] * factor;
    }
    d[column][0] = low;
    d[column][1] = high;
  }
}

namespace {

// A as a warp's lanes hold it: of a register's kPacked values lane 4g + q has the inputs from
// q kPacked on, or 4 kPacked further.
template <int kPacked, class Operands>
void gather_rows(void* const (&lanes)[32], Column* a) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const Operands*>(lanes[lane]);
    const int row = lane / 4;
    const int first = lane % 4 * kPacked;
    for (int i = 0; i < kPacked; ++i) {
      for (int r = 0; r < 4; ++r) {
        a[first + r / 2 * 4 * kPacked + i][r % 2][row] = value<kPacked>(mine.a[r], i);
      }
    }
  }
}

// Eight columns of D from lanes' sums `first` on, and back.
template <class Operands>
void gather_sums(void* const (&lanes)[32], int first, Column* d) {
  for (int lane = 0; lane < 32; ++lane) {
    const float* const sums = static_cast<const Operands*>(lanes[lane])->d + first;
    for (int r = 0; r < 4; ++r) d[lane % 4 * 2 + r % 2][r / 2][lane / 4] = sums[r];
  }
}
template <class Operands>
void scatter_sums(void* const (&lanes)[32], int first, const Column* d) {
  for (int lane = 0; lane < 32; ++lane) {
    float* const sums = static_cast<const Operands*>(lanes[lane])->d + first;
    for (int r = 0; r < 4; ++r) sums[r] = d[lane % 4 * 2 + r % 2][r / 2][lane / 4];
  }
}

template <int kPacked>
void multiply(void* const (&lanes)[32], unsigned taking_part) {
  if (taking_part != 0xffffffffU) fail("a tensor core's product without all lanes");
  constexpr int kInputs = 8 * kPacked;
  Column a[kInputs];
  Column d[kColumns];
  float b[kColumns][kInputs];
  gather_rows<kPacked, LaneOperands>(lanes, a);
  gather_sums<LaneOperands>(lanes, 0, d);
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const LaneOperands*>(lanes[lane]);
    for (int r = 0; r < 2; ++r) {
      for (int i = 0; i < kPacked; ++i) {
        b[lane / 4][(lane % 4 + r * 4) * kPacked + i] = value<kPacked>(mine.b[r], i);
      }
    }
  }
  add_products(d, kColumns, a, &b[0][0], kInputs, false);
  scatter_sums<LaneOperands>(lanes, 0, d);
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

// A warp's lines of a warpgroup's product, kColumns of whose rows are columns of B at a time.
template <int kPacked>
void multiply_by_shared(void* const (&lanes)[32], unsigned taking_part) {
  if (taking_part != 0xffffffffU) fail("a tensor core's product without all lanes");
  constexpr int kInputs = 8 * kPacked;
  const auto& first = *static_cast<const WarpgroupOperands*>(lanes[0]);
  if (reinterpret_cast<std::uintptr_t>(first.shared) % 1024 != 0) fail("rows that are not aligned");
  for (const void* lane : lanes) {
    const auto& mine = *static_cast<const WarpgroupOperands*>(lane);
    if (mine.shared != first.shared || mine.step != first.step) fail("lanes with other rows");
  }
  tell_of(first);
  Column a[kInputs];
  Column d[kColumns];
  float b[kColumns][kInputs];
  gather_rows<kPacked, WarpgroupOperands>(lanes, a);
  const bool backwards = falling.load(std::memory_order_relaxed);
  for (int row = 0; row < first.rows; row += kColumns) {
    for (int column = 0; column < kColumns; ++column) {
      std::uint32_t packed[kInputs / kPacked];
      std::memcpy(packed, chunk_of(first, row + column, 0), 16);
      std::memcpy(packed + 4, chunk_of(first, row + column, 1), 16);
      for (int i = 0; i < kInputs; ++i) {
        b[column][i] = value<kPacked>(packed[i / kPacked], i % kPacked);
      }
    }
    gather_sums<WarpgroupOperands>(lanes, row / 2, d);
    add_products(d, kColumns, a, &b[0][0], kInputs, backwards);
    scatter_sums<WarpgroupOperands>(lanes, row / 2, d);
  }
}

}  // namespace

void multiply_bf16(void* const (&lanes)[32], unsigned taking_part) {
  multiply<2>(lanes, taking_part);
}

void multiply_e4m3(void* const (&lanes)[32], unsigned taking_part) {
  multiply<4>(lanes, taking_part);
}

void multiply_shared_rows(void* const (&lanes)[32], unsigned taking_part) {
  multiply_by_shared<2>(lanes, taking_part);
}

void multiply_shared_e4m3(void* const (&lanes)[32], unsigned taking_part) {
  multiply_by_shared<4>(lanes, taking_part);
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
