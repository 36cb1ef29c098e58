#include "kernels/cpu/pack.h"

#include <bit>
#include <cstring>

namespace dsm::kernels {
namespace {

std::uint16_t bits16(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

float from_f16(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16;
  const std::uint32_t exponent = h >> 10 & 31U;
  const std::uint32_t fraction = h & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24F;
  return sign != 0 ? -tiny : tiny;
}

float value_at(const std::byte* data, DType dtype, std::int64_t index) {
  const std::byte* at = data + index * static_cast<std::int64_t>(bytes_of(dtype));
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  const std::uint16_t bits = bits16(at);
  return dtype == DType::kBF16 ? std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16)
                               : from_f16(bits);
}

}  // namespace

DType packed_dtype(std::span<const WeightPiece> pieces) {
  for (const auto& piece : pieces) {
    if (piece.data != nullptr && piece.dtype != DType::kBF16) return DType::kF32;
  }
  return DType::kBF16;
}

std::size_t packed_bytes(DType dtype, int n, int k) {
  const auto columns = static_cast<std::size_t>(round_up(n, kPanel));
  return dtype == DType::kBF16 ? columns * static_cast<std::size_t>(round_up(k, 2)) * 2
                               : columns * static_cast<std::size_t>(k) * 4;
}

PackedMatrix pack(std::span<const WeightPiece> pieces, void* out) {
  PackedMatrix packed{.data = out, .dtype = packed_dtype(pieces), .n = 0, .k = pieces[0].k};
  for (const auto& piece : pieces) packed.n += piece.n;
  const std::int64_t k = packed.k;
  std::memset(out, 0, packed_bytes(packed.dtype, packed.n, packed.k));
  std::int64_t column = 0;
  for (const auto& piece : pieces) {
    for (int j = 0; j < piece.n; ++j, ++column) {
      if (piece.data == nullptr) continue;
      const std::int64_t panel = column / kPanel;
      const std::int64_t lane = column % kPanel;
      const std::int64_t row = j * piece.n_stride;
      if (packed.dtype == DType::kBF16) {
        auto* to = static_cast<std::uint16_t*>(out) + panel * kPanel * round_up(k, 2) + lane * 2;
        for (std::int64_t i = 0; i < k; ++i) {
          to[i / 2 * kPanel * 2 + i % 2] = bits16(piece.data + (row + i * piece.k_stride) * 2);
        }
      } else {
        auto* to = static_cast<float*>(out) + panel * kPanel * k + lane;
        for (std::int64_t i = 0; i < k; ++i) {
          to[i * kPanel] = value_at(piece.data, piece.dtype, row + i * piece.k_stride);
        }
      }
    }
  }
  return packed;
}

void to_float(const std::byte* data, DType dtype, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = value_at(data, dtype, i);
}

}  // namespace dsm::kernels
