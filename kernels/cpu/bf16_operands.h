// Both sides of a product in BF16 as operands: rows, and a panel's weights where they are of
// another type: value times scale, rounded once, for a part of the inputs at a time. Internal
// linkage, as kernels.h says.
#pragma once

#include "kernels/cpu/avx512_vector.h"
#include "kernels/cpu/bf16_ops.h"
#include "kernels/cpu/product.h"

namespace dsm::kernels {
namespace {

constexpr int kStepBytes = kStepInputs * kPanel * 2;  // of a panel: [16 pairs][64][2] in BF16

inline __mmask16 first_lanes(int count) {
  if (count >= kLanes) return 0xffff;
  return count <= 0 ? __mmask16{0} : static_cast<__mmask16>((1U << count) - 1);
}

inline void store_step(__m512 low, __m512 high, std::uint16_t* to) {
  _mm512_store_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

// Inputs of a row, 32 of them or the first `count`, as operands.
inline void pack_step(const float* x, int count, std::uint16_t* to) {
  const __m512 low = _mm512_maskz_loadu_ps(first_lanes(count), x);
  const __m512 high = count > kLanes
                          ? _mm512_maskz_loadu_ps(first_lanes(count - kLanes), x + kLanes)
                          : _mm512_setzero_ps();
  store_step(low, high, to);
}

inline void pack_row(const float* x, int k, std::uint16_t* to) {
  for (int i = 0; i < k; i += kStepInputs, to += kTileRows * kStepInputs) {
    pack_step(x + i, k - i, to);
  }
}

inline void pack_rows(const RowsToPack& p, int tile_begin, int tile_end) {
  for (int tile = tile_begin; tile < tile_end; ++tile) {
    std::uint16_t* const begin = p.to.tile(tile);
    for (int r = 0; r < kTileRows; ++r) {
      const int row = tile * kTileRows + r;
      std::uint16_t* to = begin + r * kStepInputs;
      if (row >= p.rows) {
        for (int step = 0; step < p.to.steps; ++step, to += kTileRows * kStepInputs) {
          _mm512_store_si512(to, _mm512_setzero_si512());
        }
        continue;
      }
      const float* x = p.x + (p.index != nullptr ? p.index[row] : row) * p.ldx;
      if (p.segments == nullptr) {
        pack_row(x, p.k, to);
        continue;
      }
      for (int s = 0; s < p.segments->count; ++s) {
        const int k = p.segments->part[s].k;
        pack_row(x + p.segments->offset[s], k, to);
        to += operands_of(1, steps_of(k));
      }
    }
  }
}

// The nearest BF16 of both, on a tie the even one, as a pair.
inline __m512i pair_of(__m512 even, __m512 odd) {
  const auto rounded = [](__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
  };
  const __m512i high =
      _mm512_and_si512(rounded(odd), _mm512_set1_epi32(static_cast<int>(0xffff0000U)));
  return _mm512_or_si512(high, _mm512_srli_epi32(rounded(even), 16));
}

// 16 columns from `vector` on at input i, which there is, times their scales.
template <DType kType>
inline __m512 weights_at(const Columns& w, int vector, int i) {
  const int block = i < w.first_block ? 0 : (i - w.first_block) / kScaleBlock + 1;
  const __m512 scale =
      Avx512::load(w.scales + static_cast<std::int64_t>(block) * kPanel + vector * kLanes);
  const char* at = w.data + vector * kVectorBytes<kType>;
  if constexpr (kType == DType::kF8E4M3) {
    return Avx512::mul(Avx512::load_e4m3(at + i * w.row_bytes), scale);
  } else {
    constexpr int kInputs = inputs_per_word(kType);
    const int place = w.lead + i;
    const auto words = Avx512::load_words(at + place / kInputs * w.row_bytes);
    return Avx512::mul(
        Avx512::template whole_numbers<kType>(words, place_in_word(kType, place % kInputs)), scale);
  }
}

// Steps [begin, end) of a panel as operands: where they stand, or made in `made`.
template <DType kType>
inline const char* chunk_of(const PackedMatrix& w, int panel, int begin, int end, char* made) {
  const Columns columns = panel_columns<kType>(w, panel);
  if constexpr (kType == DType::kBF16) {
    if (end * kStepInputs <= w.k)
      return columns.data + static_cast<std::int64_t>(begin) * kStepBytes;
  }
  for (int i = begin * kStepInputs; i < end * kStepInputs; i += 2) {
    for (int v = 0; v < kPanel / kLanes; ++v, made += kLanes * 4) {
      __m512i pair = _mm512_setzero_si512();
      if constexpr (kType == DType::kBF16) {
        // An odd k has a zero beside the last input.
        if (i < w.k) pair = _mm512_loadu_si512(columns.data + i / 2 * columns.row_bytes + v * 64);
      } else if (i < w.k) {
        const __m512 odd = i + 1 < w.k ? weights_at<kType>(columns, v, i + 1) : _mm512_setzero_ps();
        pair = pair_of(weights_at<kType>(columns, v, i), odd);
      }
      _mm512_store_si512(made, pair);
    }
  }
  return made - static_cast<std::int64_t>(end - begin) * kStepBytes;
}

// Of any type that takes_bf16_rows().
inline const char* chunk_of(const PackedMatrix& w, int panel, int begin, int end, char* made) {
  switch (w.dtype) {
    case DType::kBF16:
      return chunk_of<DType::kBF16>(w, panel, begin, end, made);
    case DType::kF8E4M3:
      return chunk_of<DType::kF8E4M3>(w, panel, begin, end, made);
    case DType::kInt8:
      return chunk_of<DType::kInt8>(w, panel, begin, end, made);
    default:
      return chunk_of<DType::kInt4>(w, panel, begin, end, made);
  }
}

}  // namespace
}  // namespace dsm::kernels
