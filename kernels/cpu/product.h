// Vectors of 16 lanes and the one matrix product, which all operators are made of, written over a
// vector type V. kernels/ops.h says why every V gives the same bits; kernels.h, why nothing here
// may be shared between instruction sets.
#pragma once

#include "kernels/cpu/integer_product.h"
#include "kernels/cpu/lanes.h"
#include "kernels/ops.h"

namespace dsm::kernels {
namespace {

// exp for x <= 88; below -86 it is exp(-86), about 4e-38. exp(0) is exactly 1. x = n ln 2 + r: a
// polynomial in r (coefficients 1/i!, |r| <= 0.35, relative error below 1e-7), then n is added to
// the exponent.
template <class V>
inline typename V::F exp16(typename V::F x) {
  const auto magic =
      V::set(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  x = V::max(x, V::set(-86.0F));
  const auto shifted = V::fma(x, V::set(1.44269504F), magic);
  const auto n = V::sub(shifted, magic);
  auto r = V::fma(n, V::set(-0.693359375F), x);
  r = V::fma(n, V::set(2.12194440e-4F), r);
  auto p = V::set(1.0F / 5040);
  p = V::fma(p, r, V::set(1.0F / 720));
  p = V::fma(p, r, V::set(1.0F / 120));
  p = V::fma(p, r, V::set(1.0F / 24));
  p = V::fma(p, r, V::set(1.0F / 6));
  p = V::fma(p, r, V::set(0.5F));
  p = V::fma(p, r, V::set(1.0F));
  p = V::fma(p, r, V::set(1.0F));
  return V::add_exponent(p, shifted);
}

template <class V>
inline typename V::F sigmoid16(typename V::F x) {
  const auto one = V::set(1.0F);
  return V::div(one, V::add(one, exp16<V>(V::min(V::sub(V::set(0.0F), x), V::set(88.0F)))));
}

// The sum over lanes in one fixed tree.
template <class V>
inline float sum16(typename V::F x) {
  float lane[kLanes];
  V::store(lane, x);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lane[i] += lane[i + step];
  }
  return lane[0];
}

template <class V>
inline float max16(typename V::F x) {
  float lane[kLanes];
  V::store(lane, x);
  float best = lane[0];
  for (int i = 1; i < kLanes; ++i) best = lane[i] > best ? lane[i] : best;
  return best;
}

// Bytes of a vector of 16 columns: of one k, of a pair of them (BF16) or of a word (integers).
template <DType kType>
constexpr int kVectorBytes = kType == DType::kF8E4M3 ? 16 : 64;

// The right-hand side: `vectors` column vectors of 16 next to each other.
struct Columns {
  const char* data;        // at the first vector
  std::int64_t row_bytes;  // from one k, one pair of k (BF16) or one word (integers), to the next
  int vectors;
  int k;
  const float* scales = nullptr;  // of the first vector, [blocks of k][kPanel]
  int first_block = 0;            // with scales: inputs of the first block, which may be cut short
  int lead = 0;                   // integers: places of the first word before input 0
};

template <DType kType>
inline Columns panel_columns(const PackedMatrix& w, int panel) {
  const int left = w.n - panel * kPanel;
  const std::int64_t row_bytes = kPanel / kLanes * kVectorBytes<kType>;
  Columns columns{static_cast<const char*>(w.data) + panel * kPanel * column_bytes(w), row_bytes,
                  (left < kPanel ? left + kLanes - 1 : kPanel) / kLanes, w.k};
  if constexpr (kType == DType::kF8E4M3 || is_integer(kType)) {
    columns.scales = w.scales + static_cast<std::int64_t>(panel) * scale_blocks(w) * kPanel;
    columns.first_block = kScaleBlock - w.scale_phase;
  }
  if constexpr (is_integer(kType)) columns.lead = lead_of(w);
  return columns;
}

// acc[m][v] continues its chain over all k. kRows * kVectors accumulators live in registers.
template <class V, DType kType, int kRows, int kVectors>
inline __attribute__((always_inline)) void chain(const Columns& columns, int vector,
                                                 const float* const* x,
                                                 typename V::F (&acc)[kRows][kVectors]) {
  using F = typename V::F;
  const char* w = columns.data + vector * kVectorBytes<kType>;
  const std::int64_t row_bytes = columns.row_bytes;
  const int k = columns.k;
  if constexpr (kType == DType::kF8E4M3) {
    // A weight is rounded to FP32 after it was multiplied by its scale, as if it had been packed
    // so.
    const float* scales = columns.scales + vector * kLanes;
    int end = columns.first_block;
    for (int i = 0; i < k; end += kScaleBlock, scales += kPanel) {
      F scale[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) scale[v] = V::load(scales + v * kLanes);
      for (; i < k && i < end; ++i, w += row_bytes) {
        F b[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::mul(V::load_e4m3(w + v * kLanes), scale[v]);
#pragma GCC unroll 4
        for (int m = 0; m < kRows; ++m) {
          const F a = V::set(x[m][i]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[m][v] = V::fma(a, b[v], acc[m][v]);
        }
      }
    }
  } else if constexpr (kType == DType::kBF16) {
    int i = 0;
    for (; i + 1 < k; i += 2, w += row_bytes) {
      F even[kVectors];
      F odd[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        V::load_pairs(w + v * 64, even[v], odd[v]);
        __builtin_prefetch(w + v * 64 + kBytesAhead);
      }
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        const F a = V::set(x[m][i]);
        const F b = V::set(x[m][i + 1]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          acc[m][v] = V::fma(b, odd[v], V::fma(a, even[v], acc[m][v]));
        }
      }
    }
    if (i < k) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        F even;
        F odd;
        V::load_pairs(w + v * 64, even, odd);
#pragma GCC unroll 4
        for (int m = 0; m < kRows; ++m) acc[m][v] = V::fma(V::set(x[m][i]), even, acc[m][v]);
      }
    }
  } else {
    for (int i = 0; i < k; ++i, w += row_bytes) {
      F b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        b[v] = V::load(reinterpret_cast<const float*>(w) + v * kLanes);
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        const F a = V::set(x[m][i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[m][v] = V::fma(a, b[v], acc[m][v]);
      }
    }
  }
}

// Rows of a product: x[r] holds k inputs, y[r] receives `vectors` * 16 sums. By weights in integers
// x may have been made integers of already.
struct ProductRows {
  const float* x[kRowBlock];
  float* y[kRowBlock];
  int count = 0;
  MadeRows made = {};

  void add(const float* from, float* to) {
    x[count] = from;
    y[count++] = to;
  }
};

template <class V, DType kType, int kRows, int kVectors>
inline void tile(const Columns& w, const float* const* x, float* const* y, int vector, bool go_on) {
  typename V::F acc[kRows][kVectors];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      acc[m][v] = go_on ? V::load(y[m] + (vector + v) * kLanes) : V::set(0.0F);
    }
  }
  chain<V, kType, kRows, kVectors>(w, vector, x, acc);
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) V::store(y[m] + (vector + v) * kLanes, acc[m][v]);
  }
}

template <class V, DType kType, int kRows>
inline void strip(const Columns& w, const float* const* x, float* const* y, bool go_on) {
  constexpr int kMost = V::kAccumulators / kRows;
  int v = 0;
  if constexpr (kMost >= 4) {
    for (; v + 4 <= w.vectors; v += 4) tile<V, kType, kRows, 4>(w, x, y, v, go_on);
  }
  if constexpr (kMost >= 2) {
    for (; v + 2 <= w.vectors; v += 2) tile<V, kType, kRows, 2>(w, x, y, v, go_on);
  }
  for (; v < w.vectors; ++v) tile<V, kType, kRows, 1>(w, x, y, v, go_on);
}

// y[r] = the chain of x[r] against the columns, begun at zero or, with go_on, at what y[r] holds.
template <class V, DType kType>
__attribute__((noinline)) void product(const Columns& w, const ProductRows& rows, bool go_on) {
  int r = 0;
  for (; r + 4 <= rows.count; r += 4) strip<V, kType, 4>(w, rows.x + r, rows.y + r, go_on);
  for (; r + 2 <= rows.count; r += 2) strip<V, kType, 2>(w, rows.x + r, rows.y + r, go_on);
  for (; r < rows.count; ++r) strip<V, kType, 1>(w, rows.x + r, rows.y + r, go_on);
}

template <class V>
inline void panel_product(const PackedMatrix& w, int panel, const ProductRows& rows, bool go_on) {
  if (w.dtype == DType::kBF16) {
    product<V, DType::kBF16>(panel_columns<DType::kBF16>(w, panel), rows, go_on);
  } else if (w.dtype == DType::kF8E4M3) {
    product<V, DType::kF8E4M3>(panel_columns<DType::kF8E4M3>(w, panel), rows, go_on);
  } else if (is_integer(w.dtype)) {
    if (rows.count == 0) return;
    if (!go_on) {
      const Columns columns = panel_columns<DType::kF32>(w, panel);
      for (int r = 0; r < rows.count; ++r) {
        for (int v = 0; v < columns.vectors; ++v) V::store(rows.y[r] + v * kLanes, V::set(0.0F));
      }
    }
    if (w.dtype == DType::kInt8) {
      integer_product<V, DType::kInt8>(w, panel, rows.x, rows.y, rows.count, rows.made);
    } else {
      integer_product<V, DType::kInt4>(w, panel, rows.x, rows.y, rows.count, rows.made);
    }
  } else {
    product<V, DType::kF32>(panel_columns<DType::kF32>(w, panel), rows, go_on);
  }
}

}  // namespace
}  // namespace dsm::kernels
