// Vectors of 16 lanes as one register of AVX-512 (F), for the translation units that are compiled
// for it. Internal linkage, as kernels.h says.
#pragma once

#include <immintrin.h>

#include "kernels/params.h"

namespace dsm::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  // Up to so many rows at a time ShortWeights pay: with more, those of INT4 run out of registers.
  static constexpr int short_rows(DType type) { return type == DType::kInt8 ? 4 : 2; }
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

  // Scales of up to 11 significant bits and no huge magnitude, as those of weights in BF16 and FP16
  // are: with them ShortWeights are right.
  template <int kVectors>
  static bool short_scales(const F (&scale)[kVectors]) {
    __mmask16 others = 0;
    for (int v = 0; v < kVectors; ++v) {
      const __m512i bits = _mm512_castps_si512(scale[v]);
      const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
      others |= _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x1fff));
      others |= _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x70000000));  // 2^97
    }
    return others == 0;
  }

  // Weights in fewer instructions: a number's bits are put into the fraction of a power of two, and
  // what that adds to the number is taken off by the multiply-add that scales it. That is exact as
  // long as the power and what is taken off have 24 bits together with the scale.
  template <DType kType>
  struct ShortWeights {
    static constexpr bool kBytes = kType == DType::kInt8;
    static constexpr int kKinds = kBytes ? 1 : 3;  // of places in the fraction
    F scale;
    F off[kKinds];  // what is added to a scaled number of each kind

    // Where kind's numbers stand, lowest bit, and the value of the power that they are added to.
    static constexpr int bit(int kind) { return 8 + 4 * kind; }
    static constexpr int power(int kind) { return 1 << (23 - bit(kind)); }
    static constexpr int half() { return kBytes ? 128 : 8; }

    ShortWeights() = default;
    explicit ShortWeights(F of_block) : scale(of_block) {
      for (int kind = 0; kind < kKinds; ++kind) {
        off[kind] = mul(set(-static_cast<float>(power(kind) + half())), scale);
      }
    }

    template <int kKind>
    F of_kind(Words words) const {
      constexpr std::uint32_t kMask = (kBytes ? 0xffU : 0xfU) << bit(kKind);
      constexpr std::uint32_t kPower = static_cast<std::uint32_t>(127 + 23 - bit(kKind)) << 23;
      // A byte in two's complement plus 128 is the byte with its highest bit turned.
      constexpr std::uint32_t kTurned = kPower ^ (kBytes ? 128U << bit(kKind) : 0U);
      const __m512i number = _mm512_ternarylogic_epi32(
          reinterpret_cast<__m512i>(words), _mm512_set1_epi32(static_cast<int>(kMask)),
          _mm512_set1_epi32(static_cast<int>(kTurned)), 0x6a);  // (a & b) ^ c
      return fma(_mm512_castsi512_ps(number), scale, off[kKind]);
    }

    // Places 2, 3 and 4 of INT4 stand where they are taken from, the others are moved there.
    F at(Words words, int place) const {
      if constexpr (kBytes) {
        return of_kind<0>(place == 0 ? words << 8 : words >> (8 * place - 8));
      } else {
        const Words moved = place < 2 ? words << 8 : place < 5 ? words : words >> 12;
        switch (place < 2 ? place : place < 5 ? place - 2 : place - 5) {
          case 0:
            return of_kind<0>(moved);
          case 1:
            return of_kind<1>(moved);
          default:
            return of_kind<2>(moved);
        }
      }
    }
  };
};

}  // namespace
}  // namespace dsm::kernels
