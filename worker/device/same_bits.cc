#include "worker/device/same_bits.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/params.h"

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// What a row, or a column of weights, is made of.
enum class Kind : std::uint8_t {
  kOrdinary,
  kFarApart,    // exponents
  kCancels,     // neighbours do, all but their last digits
  kTiny,        // down to numbers that are not normal
  kLargeFirst,  // a chain's first step makes a sum beside which others are small
  kNoNumbers,   // some of them
};
constexpr Kind kKinds[] = {Kind::kOrdinary, Kind::kFarApart,   Kind::kCancels,
                           Kind::kTiny,     Kind::kLargeFirst, Kind::kNoNumbers};

// Values of one row or column after the other.
class Values {
 public:
  explicit Values(unsigned seed) : random_(seed) {}

  float next(Kind kind, int input) {
    const float sign = random_() % 2 == 0 ? 1.0F : -1.0F;
    switch (kind) {
      case Kind::kOrdinary:
        return sign * fraction();
      case Kind::kFarApart:
        return sign * std::ldexp(fraction(), below(80) - 40);
      case Kind::kCancels:
        if (input % 2 == 0) return last_ = sign * fraction();
        return -last_ * (1.0F + std::ldexp(fraction(), -8));
      case Kind::kTiny:
        return sign * std::ldexp(fraction(), -100 - below(40));
      case Kind::kLargeFirst:
        return sign * std::ldexp(fraction(), input % kScaleBlock < 16 ? 20 : -below(24));
      case Kind::kNoNumbers:
        return not_finite(sign);
    }
    return 0.0F;
  }

 private:
  int below(unsigned count) { return static_cast<int>(random_() % count); }
  float fraction() { return 1.0F + static_cast<float>(random_() >> 9) * 0x1p-23F; }
  float not_finite(float sign) {
    switch (below(60)) {
      case 0:
        return sign * std::numeric_limits<float>::infinity();
      case 1:
        return std::numeric_limits<float>::quiet_NaN();
      case 2:
        return sign * std::numeric_limits<float>::max();  // infinite in BF16
      default:
        return sign * fraction();
    }
  }

  std::mt19937 random_;
  float last_ = 0.0F;
};

// A weight [n, k] in a checkpoint, with columns of all kinds that are numbers.
struct Weight {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  WeightPiece piece;

  Weight(int n, int k, DType dtype, unsigned seed) {
    if (dtype == DType::kF8E4M3) {
      std::mt19937 random(seed);
      bytes.resize(size(std::int64_t{n} * k));
      for (auto& byte : bytes) byte = std::byte(random() & 0xf7U);  // no NaN
      Values values(seed);
      scales.resize(size((n + 127) / 128 * ((k + 127) / 128)));
      for (float& scale : scales) scale = std::abs(values.next(Kind::kOrdinary, 0)) * 0x1p-6F;
      piece = {bytes.data(), dtype, k, 1, n, k};
      piece.scales = {reinterpret_cast<const std::byte*>(scales.data()), DType::kF32, 128, 128, k};
      return;
    }
    bytes.resize(size(std::int64_t{n} * k * 2));
    Values values(seed);
    for (int column = 0; column < n; ++column) {
      const Kind kind = kKinds[static_cast<unsigned>(column) % (std::size(kKinds) - 1)];
      for (int i = 0; i < k; ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(values.next(kind, i));
        const auto half = static_cast<std::uint16_t>(bits >> 16);
        std::memcpy(bytes.data() + 2 * (size(std::int64_t{column} * k) + size(i)), &half, 2);
      }
    }
    piece = {bytes.data(), DType::kBF16, k, 1, n, k};
    if (dtype != DType::kBF16) piece.round_to = dtype;
  }
};

struct Shape {
  int rows;
  int n;
  int k;
  DType dtype;
};

std::vector<Shape> shapes() {
  constexpr int kWidth = 128;
  std::vector<Shape> all;
  // Chains of all lengths.
  for (int k = 8; k <= kScaleBlock; k += 8) all.push_back({40, kWidth, k, DType::kBF16});
  // Several splits and spans, tiles that are half and whole, and odd ends.
  all.push_back({130, kWidth, 333, DType::kBF16});
  all.push_back({70, kWidth, 1024 + 600, DType::kBF16});
  for (const DType dtype : {DType::kF8E4M3, DType::kInt8, DType::kInt4}) {
    all.push_back({70, kWidth, 300, dtype});
  }
  return all;
}

std::vector<float> rows_of(const Shape& shape, unsigned seed) {
  Values values(seed);
  std::vector<float> x;
  x.reserve(size(std::int64_t{shape.rows} * shape.k));
  for (int row = 0; row < shape.rows; ++row) {
    const Kind kind = kKinds[static_cast<unsigned>(row) % std::size(kKinds)];
    for (int i = 0; i < shape.k; ++i) x.push_back(values.next(kind, i));
  }
  return x;
}

bool same(float a, float b) {
  if (std::isnan(a) && std::isnan(b)) return true;
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::string different_bits(Backend& few, Backend& many, const Shape& shape, unsigned seed) {
  const Weight weight(shape.n, shape.k, shape.dtype, seed);
  const std::span<const WeightPiece> pieces(&weight.piece, 1);
  const PackedMatrix w = few.reserve(pieces);
  if (!few.pack_panels(pieces, w, 0, panels_of(w))) return "weights that are no numbers";
  const std::vector<float> x = rows_of(shape, seed + 1);
  auto* from = allocate<float>(few, x.size());
  few.write(from, x.data(), x.size() * sizeof(float));
  const std::size_t count = size(std::int64_t{shape.rows} * shape.n);
  float* sums[2] = {};
  Backend* const backends[2] = {&few, &many};
  for (std::size_t i = 0; i < 2; ++i) {
    auto* y = allocate<float>(few, count);
    few.wait();
    backends[i]->linear(
        {.x = from, .ldx = shape.k, .w = &w, .y = y, .ldy = shape.n, .rows = shape.rows});
    backends[i]->wait();
    sums[i] = allocate_shared<float>(few, count);
    few.copy(sums[i], y, count);
    few.wait();
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (same(sums[0][i], sums[1][i])) continue;
    return "row " + std::to_string(i / size(shape.n)) + ", column " +
           std::to_string(i % size(shape.n)) + " of " + std::to_string(shape.k) +
           " inputs, weights of type " + std::to_string(static_cast<int>(shape.dtype)) + ": " +
           std::to_string(sums[0][i]) + " by the kernel for few rows, " +
           std::to_string(sums[1][i]) + " by that for many";
  }
  return {};
}

}  // namespace

std::string different_bits(Backend& few, Backend& many) {
  unsigned seed = 1;
  for (const Shape& shape : shapes()) {
    seed += 2;
    std::string difference = different_bits(few, many, shape, seed);
    if (!difference.empty()) return difference;
  }
  return {};
}

}  // namespace dsm::device
