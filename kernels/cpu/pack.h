// Weights as they stand in a checkpoint -> packed panels (layout at kernels::PackedMatrix).
#pragma once

#include <cstddef>
#include <span>

#include "kernels/params.h"

namespace dsm::kernels {

// Element (j, i) of a piece of a weight, output column j and input i, stands at data + (j *
// n_stride + i * k_stride) elements, at any alignment. data == nullptr: n columns of zeros.
struct WeightPiece {
  const std::byte* data = nullptr;
  DType dtype = DType::kBF16;
  std::int64_t n_stride = 0;
  std::int64_t k_stride = 1;
  int n = 0;
  int k = 0;
};

// The type in which pieces are packed together: BF16 when all of them are, else FP32 (exact for
// FP16 and BF16).
DType packed_dtype(std::span<const WeightPiece> pieces);
std::size_t packed_bytes(DType dtype, int n, int k);
// Packs the pieces side by side along n. All have the same k. `out` holds packed_bytes() for the
// sum of their n.
PackedMatrix pack(std::span<const WeightPiece> pieces, void* out);

// `count` values at any alignment as FP32.
void to_float(const std::byte* data, DType dtype, std::int64_t count, float* out);

}  // namespace dsm::kernels
