// Weights as they stand in checkpoints, for tests of backends.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "worker/device/backend_fixture.h"

namespace dsm::device {

// A weight [n, k] as it stands in a checkpoint.
struct Weight {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  kernels::WeightPiece piece;
};

inline Weight plain_weight(int n, int k, kernels::DType dtype, unsigned seed) {
  Weight w;
  const auto values = random_floats(size(n) * size(k), seed, 0.1F);
  w.bytes.resize(values.size() * kernels::bytes_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == kernels::DType::kF32) {
      std::memcpy(w.bytes.data() + 4 * i, &values[i], 4);
    } else {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      const auto half = static_cast<std::uint16_t>(bits >> 16);
      std::memcpy(w.bytes.data() + 2 * i, &half, 2);
    }
  }
  w.piece = {w.bytes.data(), dtype, k, 1, n, k};
  return w;
}

// Inputs from `first` on of a wider tensor in FP8 blocks.
inline Weight fp8_weight(int n, int k, int first, unsigned seed) {
  Weight w;
  std::mt19937 random(seed);
  const std::int64_t columns = first + k + 13;
  w.bytes.resize(size(n * columns));
  for (auto& byte : w.bytes) byte = std::byte(random() & 0xb7U);  // up to 0.47, no NaN
  const std::int64_t blocks = (n + 127) / 128 * ((columns + 127) / 128);
  w.scales = random_floats(size(blocks), seed + 1, 0.3F);
  w.piece = {w.bytes.data(),
             kernels::DType::kF8E4M3,
             columns,
             1,
             n,
             k,
             first,
             {reinterpret_cast<const std::byte*>(w.scales.data()), kernels::DType::kF32, 128, 128,
              columns}};
  return w;
}

// Inputs from `first` on of a wider tensor in BF16 that is rounded to integers.
inline Weight integer_weight(int n, int k, int first, kernels::DType dtype, unsigned seed) {
  const int columns = first + k + 13;
  Weight w = plain_weight(n, columns, kernels::DType::kBF16, seed);
  w.piece.k = k;
  w.piece.origin = first;
  w.piece.round_to = dtype;
  return w;
}

// Which way words lie in a checkpoint (kernels/cpu/stored_integers.h).
enum class Rows { kOutputs, kInputs };

// Inputs from 128 on and outputs from 8 on of a larger tensor that is in integers.
inline Weight stored_weight(int n, int k, kernels::DType dtype, Rows rows, unsigned seed) {
  Weight w;
  std::mt19937 random(seed);
  const std::int64_t outputs = kernels::round_up(n + 8, 8);
  const std::int64_t inputs = kernels::round_up(128 + k, 8);
  w.bytes.resize(size(outputs * inputs / (dtype == kernels::DType::kInt4 ? 2 : 1)));
  for (auto& byte : w.bytes) byte = std::byte(random() & 0xffU);
  const std::int64_t blocks = (inputs + 127) / 128;
  // About 0.1 for a number of middling size.
  w.scales = random_floats(size(outputs * blocks), seed + 1,
                           dtype == kernels::DType::kInt4 ? 0.02F : 0.001F);
  const bool by_output = rows == Rows::kOutputs;
  w.piece = {w.bytes.data(),
             dtype,
             by_output ? inputs : 1,
             by_output ? 1 : outputs,
             n,
             k,
             by_output ? 8 * inputs + 128 : 128 * outputs + 8,
             {reinterpret_cast<const std::byte*>(w.scales.data()), kernels::DType::kF32,
              by_output ? 1 : 128, by_output ? 128 : 1, by_output ? inputs : outputs},
             dtype};
  return w;
}

inline Weight weight(int n, int k, kernels::DType dtype, unsigned seed) {
  const int first = seed % 2 == 0 ? 0 : 77;  // inside of a block of scales
  if (dtype == kernels::DType::kF8E4M3) return fp8_weight(n, k, first, seed);
  if (kernels::is_integer(dtype)) return integer_weight(n, k, first, dtype, seed);
  return plain_weight(n, k, dtype, seed);
}

inline kernels::PackedMatrix load(const Side& side, const Weight& w) {
  const std::span<const kernels::WeightPiece> pieces(&w.piece, 1);
  const kernels::PackedMatrix packed = side.backend->reserve(pieces);
  // In parts, as the loader does.
  const int panels = kernels::panels_of(packed);
  for (int begin = 0; begin < panels; begin += 2) {
    EXPECT_TRUE(side.backend->pack_panels(pieces, packed, begin, std::min(panels, begin + 2)));
  }
  return packed;
}

// Of one segment, as where no rank cuts it.
inline kernels::SegmentedMatrix load_whole(const Side& side, const Weight& w) {
  kernels::SegmentedMatrix whole;
  whole.part[0] = load(side, w);
  whole.count = 1;
  return whole;
}

inline constexpr kernels::DType kTypes[] = {kernels::DType::kBF16, kernels::DType::kF8E4M3,
                                            kernels::DType::kInt8, kernels::DType::kInt4,
                                            kernels::DType::kF32};

}  // namespace dsm::device
