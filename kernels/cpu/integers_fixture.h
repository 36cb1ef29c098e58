// Weights in integers by their definitions, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cpu/pack.h"

namespace dsm::kernels {

// A tensor [rows, columns] in FP32 and what it becomes, by the definition.
struct Tensor {
  Tensor(int r, int c, unsigned seed) : rows(r), columns(c) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 0.1F);
    values.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
    for (float& value : values) value = normal(random);
  }

  float value(int row, int column) const {
    return values[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
                  static_cast<std::size_t>(column)];
  }
  // By the definition, and each value's step.
  struct Rounded {
    std::vector<float> values;
    std::vector<float> steps;
  };
  Rounded rounded(DType dtype) const {
    Rounded all;
    const double lowest = dtype == DType::kInt4 ? -8 : -128;
    for (int row = 0; row < rows; ++row) {
      for (int first = 0; first < columns; first += 128) {
        const int end = std::min(first + 128, columns);
        float extreme = 0;
        for (int i = first; i < end; ++i) {
          if (std::abs(value(row, i)) > std::abs(extreme)) extreme = value(row, i);
        }
        const float step = extreme / static_cast<float>(lowest);
        for (int i = first; i < end; ++i) {
          const auto exact = static_cast<double>(value(row, i) / step);
          const double integer = std::clamp(std::nearbyint(exact), lowest, -lowest - 1);
          all.values.push_back(static_cast<float>(integer) * step);
          all.steps.push_back(std::abs(step));
        }
      }
    }
    return all;
  }
  WeightPiece slice(int row, int n, int column, int k, std::optional<DType> dtype) const {
    return {.data = reinterpret_cast<const std::byte*>(values.data()),
            .dtype = DType::kF32,
            .n_stride = columns,
            .n = n,
            .k = k,
            .origin = std::int64_t{row} * columns + column,
            .round_to = dtype};
  }

  int rows;
  int columns;
  std::vector<float> values;
};

struct Packed {
  explicit Packed(const std::vector<WeightPiece>& pieces) {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    storage.assign(packed_bytes(shape.dtype, shape.n, shape.k), std::byte{0x55});
    matrix = packed_matrix(pieces, storage.data());
    finite = pack_panels(pieces, matrix, 0, panels_of(matrix));
  }
  std::vector<std::byte> storage;
  PackedMatrix matrix;
  bool finite;
};

// Element (j, i) of a packed matrix, by the layout that kernels/params.h describes: its integer and
// its scale.
struct PackedElement {
  int integer;
  float scale;
};
inline PackedElement packed_element(const PackedMatrix& w, int j, int i) {
  const int per_word = w.dtype == DType::kInt4 ? 8 : 4;
  const int bits = 32 / per_word;
  const int lead = w.scale_phase % per_word;
  const int words = (lead + w.k + per_word - 1) / per_word;
  const int number = (lead + i) % per_word;
  const int place = number / 2 + (number % 2 != 0 ? per_word / 2 : 0);
  const std::uint32_t word = static_cast<const std::uint32_t*>(
      w.data)[(j / kPanel * words + (lead + i) / per_word) * kPanel + j % kPanel];
  const auto code = static_cast<int>(word >> (place * bits) & ((1U << bits) - 1));
  const int integer = bits == 4 ? code - 8 : code - (code >= 128 ? 256 : 0);
  const int blocks = (w.scale_phase + w.k + 127) / 128;
  const int block = (w.scale_phase + i) / 128;
  return {integer, w.scales[(j / kPanel * blocks + block) * kPanel + j % kPanel]};
}
inline float packed_at(const PackedMatrix& w, int j, int i) {
  const auto [integer, scale] = packed_element(w, j, i);
  return static_cast<float>(integer) * scale;
}

}  // namespace dsm::kernels
