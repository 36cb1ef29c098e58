// Products with weights in integers by AVX512-VNNI, which multiplies four bytes without sign by
// four with one and adds to 32 bits. A row's numbers are two signed digits, 256 * high + low, in
// the order of the weights' words, so that weights are taken as they stand: those of INT8 with
// their highest bit turned, which adds 128 to each, and those of INT4 are not below zero as they
// are. What is added too much is a multiple of the sum of a row's integers.
//
// A part of a row's numbers is one digit of 64 inputs: high, high, low, low. Of INT8 it meets 16
// words; of INT4 the first of a digit is what the lower halves of 16 words' bytes meet, the second
// what the upper ones do. Internal linkage, as kernels.h says.
#pragma once

#include "kernels/cpu/avx512_vector.h"

namespace dsm::kernels {
namespace {

struct ByteIntegers {
  static constexpr int kParts = kPieceBytes / kPartBytes;

  static __mmask16 lanes(int count) {
    if (count >= kLanes) return 0xffff;
    return count <= 0 ? __mmask16{0} : static_cast<__mmask16>((1U << count) - 1);
  }

  // 64 numbers of 16 bits -> the bytes of one digit.
  static __m512i low_bytes(__m512i first, __m512i last) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(first)),
                              _mm512_cvtepi16_epi8(last), 1);
  }

  // Digits of 128 inputs in the order of words.
  static void put(DType type, __m512i first, __m512i last, std::byte* to, std::int64_t part) {
    if (type == DType::kInt8) {
      const __m512i order = _mm512_set4_epi32(0x0f0d0e0c, 0x0b090a08, 0x07050604, 0x03010200);
      first = _mm512_shuffle_epi8(first, order);
      last = _mm512_shuffle_epi8(last, order);
    } else {
      const __m512i order = _mm512_set4_epi32(0x0f0b0e0a, 0x0d090c08, 0x07030602, 0x05010400);
      first = _mm512_shuffle_epi8(first, order);
      last = _mm512_shuffle_epi8(last, order);
      const __m512i even =
          _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      const __m512i lower = _mm512_permutex2var_epi32(first, even, last);
      last = _mm512_permutex2var_epi32(first, odd, last);
      first = lower;
    }
    _mm512_store_si512(to, first);
    _mm512_store_si512(to + part, last);
  }

  static PieceFactor make(DType type, const float* x, const Piece& piece, std::byte* to,
                          std::int64_t part) {
    x += piece.begin;
    __m512i magnitude = _mm512_setzero_si512();
    for (int i = 0; i < piece.count; i += kLanes) {
      const __m512 some = _mm512_maskz_loadu_ps(lanes(piece.count - i), x + i);
      magnitude = _mm512_max_epu32(
          magnitude, _mm512_and_si512(_mm512_castps_si512(some), _mm512_set1_epi32(0x7fffffff)));
    }
    const std::uint32_t power = power_of(_mm512_reduce_max_epu32(magnitude));
    alignas(64) std::int16_t numbers[kScaleBlock + kLanes] = {};
    PieceFactor factor{__builtin_nanf(""), 0};
    if (power != 0) {
      factor.power = __builtin_bit_cast(float, power << 23);
      const __m512 inverse = _mm512_set1_ps(__builtin_bit_cast(float, (254 - power) << 23));
      __m512i sum = _mm512_setzero_si512();
      for (int i = 0; i < piece.count; i += kLanes) {
        const __m512 some = _mm512_maskz_loadu_ps(lanes(piece.count - i), x + i);
        const __m512i number = _mm512_cvtps_epi32(_mm512_mul_ps(some, inverse));
        sum = _mm512_add_epi32(sum, number);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers + piece.lead + i),
                            _mm512_cvtepi32_epi16(number));
      }
      factor.sum = _mm512_reduce_add_epi32(sum);
    }
    __m512i low[2];
    __m512i high[2];
    for (int half = 0; half < 2; ++half) {
      const __m512i a = _mm512_load_si512(numbers + half * 64);
      const __m512i b = _mm512_load_si512(numbers + half * 64 + 32);
      // The low byte with its sign, and what is left.
      const auto upper = [](__m512i both) {
        return _mm512_srai_epi16(_mm512_add_epi16(both, _mm512_set1_epi16(128)), 8);
      };
      low[half] = low_bytes(a, b);
      high[half] = low_bytes(upper(a), upper(b));
    }
    put(type, high[0], high[1], to, part);
    put(type, low[0], low[1], to + 2 * part, part);
    return factor;
  }

  static __m512i four(const std::byte* at) {
    std::int32_t bytes = 0;
    __builtin_memcpy(&bytes, at, 4);
    return _mm512_set1_epi32(bytes);
  }

  template <DType kType, int kRows, int kVectors>
  static void tile(const PieceColumns& w, const PieceRows& rows, int row, int vector,
                   float* const* y) {
    __m512i high[kRows][kVectors];
    __m512i low[kRows][kVectors];
    const std::byte* numbers[kRows];
    for (int m = 0; m < kRows; ++m) {
      numbers[m] = rows.row(row + m);
      for (int v = 0; v < kVectors; ++v) high[m][v] = low[m][v] = _mm512_setzero_si512();
    }
    const std::int64_t part = rows.part();
    const char* words = w.words + vector * 64;
    const auto add = [&](const __m512i(&weights)[kVectors], int at, std::int64_t half)
                         __attribute__((always_inline)) {
#pragma GCC unroll 4
                           for (int m = 0; m < kRows; ++m) {
                             const __m512i upper = four(numbers[m] + half + at);
                             const __m512i lower = four(numbers[m] + half + 2 * part + at);
#pragma GCC unroll 4
                             for (int v = 0; v < kVectors; ++v) {
                               high[m][v] = _mm512_dpbusd_epi32(high[m][v], weights[v], upper);
                               low[m][v] = _mm512_dpbusd_epi32(low[m][v], weights[v], lower);
                             }
                           }
                         };
    for (int first = 0; first < w.count; first += 16) {
      const int end = w.count - first < 16 ? w.count - first : 16;
      for (int j = 0; j < end; ++j, words += kPanel * 4) {
        __m512i word[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          word[v] = _mm512_loadu_si512(words + v * 64);
          __builtin_prefetch(words + v * 64 + kBytesAhead);
        }
        if constexpr (kType == DType::kInt8) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            word[v] = _mm512_xor_si512(word[v], _mm512_set1_epi8(-128));
          }
          add(word, j * 4, first / 16 * part);
        } else {
          const __m512i four_bits = _mm512_set1_epi8(15);
          __m512i some[kVectors];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) some[v] = _mm512_and_si512(word[v], four_bits);
          add(some, j * 4, 0);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            some[v] = _mm512_and_si512(_mm512_srli_epi32(word[v], 4), four_bits);
          }
          add(some, j * 4, part);
        }
      }
    }
    constexpr int kMore = kType == DType::kInt8 ? 128 : 8;
    for (int m = 0; m < kRows; ++m) {
      const PieceFactor& factor = rows.factor(row + m);
      const __m512 power = _mm512_set1_ps(factor.power);
      const __m512i more = _mm512_set1_epi32(kMore * factor.sum);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        float* const to = y[row + m] + (vector + v) * kLanes;
        const __m512i sum =
            _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(high[m][v], 8), low[m][v]), more);
        const __m512 scale = Avx512::mul(Avx512::load(w.scales + (vector + v) * kLanes), power);
        Avx512::store(to, Avx512::fma(_mm512_cvtepi32_ps(sum), scale, Avx512::load(to)));
      }
    }
  }

  template <DType kType, int kRows>
  static void columns(const PieceColumns& w, const PieceRows& rows, int row, float* const* y) {
    int v = 0;
    if constexpr (kRows <= 2) {
      for (; v + 4 <= w.vectors; v += 4) tile<kType, kRows, 4>(w, rows, row, v, y);
    }
    for (; v + 2 <= w.vectors; v += 2) tile<kType, kRows, 2>(w, rows, row, v, y);
    for (; v < w.vectors; ++v) tile<kType, kRows, 1>(w, rows, row, v, y);
  }

  template <DType kType>
  static void multiply(const PieceColumns& w, const PieceRows& rows, float* const* y) {
    int r = 0;
    for (; r + 4 <= rows.count; r += 4) columns<kType, 4>(w, rows, r, y);
    for (; r + 2 <= rows.count; r += 2) columns<kType, 2>(w, rows, r, y);
    for (; r < rows.count; ++r) columns<kType, 1>(w, rows, r, y);
  }
};

}  // namespace
}  // namespace dsm::kernels
