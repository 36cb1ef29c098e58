#include "worker/model/imagined_weights.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>

namespace dsm::model {
namespace {

using kernels::DType;

// Words of noise that are repeated: a prime number, so that no two columns are alike.
constexpr std::size_t kPeriod = 1'000'003;
// Where a tensor's noise begins.
constexpr std::size_t kUnit = 256;
constexpr std::size_t kBegins = 251;
constexpr float kScale = 0.01F;  // of FP8, whose numbers are about 1

// Matrices of attention and MLPs, but not those that decide experts and positions.
bool becomes_fp8(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  return (has("self_attn.") || has("mlp.")) && !has("mlp.gate.") && !has("weights_proj");
}

// Of all experts the same.
std::string without_expert(std::string_view name) {
  constexpr std::string_view kExperts = ".experts.";
  const auto at = name.find(kExperts);
  if (at == std::string_view::npos) return std::string(name);
  const auto end = name.find('.', at + kExperts.size());
  return std::string(name.substr(0, at)) + std::string(name.substr(std::min(end, name.size())));
}

}  // namespace

TensorView ImaginedWeights::get(std::string_view name, std::initializer_list<std::int64_t> shape) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  const auto view = [&](DType dtype, std::span<const std::byte> bytes) {
    return TensorView{.dtype = dtype, .unsupported = {}, .shape = shape, .bytes = bytes};
  };
  if (name.ends_with("_scale_inv")) return view(DType::kF32, filled(kScale, count));
  if (shape.size() < 2) {
    if (name.ends_with("norm.weight")) return view(DType::kF32, filled(1, count));
    return view(DType::kF32, noise(name, count * sizeof(float)));
  }
  if (name == "lm_head.weight" && *shape.begin() == *(shape.end() - 1)) {
    return view(DType::kBF16, unit_matrix(static_cast<std::size_t>(*shape.begin())));
  }
  if (fp8_ && becomes_fp8(name)) return view(DType::kF8E4M3, noise(name, count));
  return view(DType::kBF16, noise(name, count * 2));
}

std::span<std::byte> ImaginedWeights::memory(std::size_t bytes) {
  all_.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
  return {all_.back().get(), bytes};
}

// Pairs of BF16 from 2^-7 on and below 1.5 times that, of either sign, which FP32 of about the same
// size begins with, too. No byte is 0x7f or 0xff, which are not numbers in E4M3.
std::span<const std::byte> ImaginedWeights::noise(std::string_view name, std::size_t bytes) {
  if (const std::size_t all = bytes + kBegins * kUnit; noise_.size() < all) {
    const std::size_t period = std::min(kPeriod, (all + 3) / 4);
    const auto to = memory(std::max((all + 3) / 4 * 4, period * 4));
    std::mt19937 random(1);
    for (std::size_t i = 0; i < period; ++i) {
      const auto pair = static_cast<std::uint32_t>((random() & 0x803f803fU) | 0x3c003c00U);
      std::memcpy(to.data() + i * 4, &pair, 4);
    }
    // What was written before is a multiple of the period.
    for (std::size_t at = period * 4; at < to.size();) {
      const std::size_t part = std::min(at, to.size() - at);
      std::memcpy(to.data() + at, to.data(), part);
      at += part;
    }
    noise_ = to;
  }
  const std::size_t begin = std::hash<std::string>{}(without_expert(name)) % kBegins * kUnit;
  return noise_.subspan(begin, bytes);
}

std::span<const std::byte> ImaginedWeights::filled(float with, std::size_t count) {
  auto& all = filled_[with];
  if (all.size() < count * sizeof with) {
    const auto to = memory(count * sizeof with);
    for (std::size_t at = 0; at < to.size(); at += sizeof with) {
      std::memcpy(to.data() + at, &with, sizeof with);
    }
    all = to;
  }
  return all.first(count * sizeof with);
}

std::span<const std::byte> ImaginedWeights::unit_matrix(std::size_t size) {
  constexpr std::uint16_t kOne = 0x3f80;
  auto& matrix = unit_matrices_[size];
  if (matrix.empty()) {
    const auto to = memory(size * size * sizeof kOne);
    std::ranges::fill(to, std::byte{0});
    for (std::size_t i = 0; i < size; ++i) {
      std::memcpy(to.data() + (i * size + i) * sizeof kOne, &kOne, sizeof kOne);
    }
    matrix = to;
  }
  return matrix;
}

}  // namespace dsm::model
