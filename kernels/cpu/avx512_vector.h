// Vectors of 16 lanes as one register of AVX-512 (F and BW), for the translation units that are
// compiled for it. Internal linkage, as kernels.h says.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/integer_product.h"

namespace dsm::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kAccumulators = 16;  // of 32 registers

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F add_exponent(F p, F shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
  }
  static F load_e4m3(const char* p) {
    const __m512i x = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_slli_epi32(x, 20),
                                                _mm512_set1_epi32(static_cast<int>(0x87ffffffU))));
  }
  static void load_pairs(const char* p, F& even, F& odd) {
    const __m512i x = _mm512_loadu_si512(p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    odd =
        _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  }
  // Shifts of the vector extension take a constant as well as a variable.
  typedef std::uint32_t Words __attribute__((vector_size(64)));
  static Words load_words(const char* p) { return reinterpret_cast<Words>(_mm512_loadu_si512(p)); }
  template <DType kType>
  static F whole_numbers(Words words, int place) {
    if constexpr (kType == DType::kInt8) {
      const auto high = reinterpret_cast<__m512i>(words << (24 - 8 * place));
      return _mm512_cvtepi32_ps(_mm512_srai_epi32(high, 24));
    } else {
      // The lowest four bits choose among the 16 numbers.
      const __m512 numbers = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
      return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(words >> (4 * place)), numbers);
    }
  }

  // Lanes of 32 bits.
  using I = __m512i;
  static I set_int(std::int32_t x) { return _mm512_set1_epi32(x); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  template <DType kType>
  static I pairs(Words words, int pair) {
    if constexpr (kType == DType::kInt8) {
      const auto both = reinterpret_cast<__m512i>(words);
      return _mm512_srai_epi16(pair == 0 ? _mm512_slli_epi16(both, 8) : both, 8);
    } else {
      return reinterpret_cast<__m512i>(words >> (4 * pair) & 0x000f000fU);
    }
  }
  static I multiply_pairs(I a, I b, I sum) { return add_int(_mm512_madd_epi16(a, b), sum); }
  using Integers = PairIntegers<Avx512>;
};

}  // namespace
}  // namespace dsm::kernels
