#include "bench/gpu/noise.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>

namespace dsm::bench {

using namespace kernels;  // parameter structs

Noise::Noise(device::Backend& backend) : backend_(backend), noise_(std::size_t{1} << 20) {
  std::mt19937 random(1);
  // From 1/128 on and below 1/64, of either sign, as two BF16 values, and as FP32. No byte is 0x7f
  // or 0xff, which are not numbers in E4M3.
  for (auto& pair : noise_) {
    pair = static_cast<std::uint32_t>((random() & 0x803f803fU) | 0x3c003c00U);
  }
}

float* Noise::floats(std::int64_t count) {
  auto* to = device::allocate<float>(backend_, static_cast<std::size_t>(count));
  fill(to, count * 4);
  return to;
}

void Noise::fill(void* to, std::int64_t bytes) {
  const std::size_t all = static_cast<std::size_t>(bytes);
  for (std::size_t at = 0; at < all; at += noise_.size() * 4) {
    backend_.write(static_cast<std::byte*>(to) + at, noise_.data(),
                   std::min(noise_.size() * 4, all - at));
  }
}

PackedMatrix Noise::matrix(int n, int k, DType dtype) {
  const DType as_stored = is_integer(dtype) ? DType::kBF16 : dtype;
  const auto bytes =
      static_cast<std::size_t>(n) * static_cast<std::size_t>(k) * bytes_of(as_stored);
  if (stored_.size() < bytes) {
    stored_.resize(bytes);
    for (std::size_t at = 0; at < bytes; at += noise_.size() * 4) {
      std::memcpy(stored_.data() + at, noise_.data(), std::min(noise_.size() * 4, bytes - at));
    }
  }
  WeightPiece piece{stored_.data(), as_stored, k, 1, n, k};
  piece.round_to = dtype == as_stored ? piece.round_to : dtype;
  const std::vector<float> scales(
      static_cast<std::size_t>((n + 127) / 128) * static_cast<std::size_t>((k + 127) / 128), 0.01F);
  if (dtype == DType::kF8E4M3) {
    piece.scales = {reinterpret_cast<const std::byte*>(scales.data()), DType::kF32, 128, 128, k};
  }
  const std::span<const WeightPiece> pieces(&piece, 1);
  const PackedMatrix packed = backend_.reserve(pieces);
  backend_.parallel(panels_of(packed), [&](int panel) {
    (void)backend_.pack_panels(pieces, packed, panel, panel + 1);
  });
  return packed;
}

}  // namespace dsm::bench
