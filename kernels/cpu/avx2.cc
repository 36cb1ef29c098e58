// The operators with AVX2 and FMA: 16 lanes are two registers.
#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

struct Avx2 {
  struct F {
    __m256 lo;
    __m256 hi;
  };
  static constexpr int kAccumulators = 4;  // 8 of the 16 registers

  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static __m256 add_exponent8(__m256 p, __m256 shifted) {
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
  }
  static F add_exponent(F p, F shifted) {
    return {add_exponent8(p.lo, shifted.lo), add_exponent8(p.hi, shifted.hi)};
  }
  static __m256 e4m3_8(const char* p) {
    const __m256i x = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(x, 20),
                                                _mm256_set1_epi32(static_cast<int>(0x87ffffffU))));
  }
  static F load_e4m3(const char* p) { return {e4m3_8(p), e4m3_8(p + 8)}; }
  static void load_pairs(const char* p, F& even, F& odd) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
    even = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
    odd = {_mm256_castsi256_ps(_mm256_and_si256(a, high)),
           _mm256_castsi256_ps(_mm256_and_si256(b, high))};
  }
  struct Words {
    __m256i lo;
    __m256i hi;
  };
  static Words load_words(const char* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }

  // Lanes of 32 bits.
  using I = Words;
  static I set_int(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I add_int(I a, I b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)}; }
  template <DType kType>
  static __m256i pairs8(__m256i words, int pair) {
    if constexpr (kType == DType::kInt8) {
      return _mm256_srai_epi16(pair == 0 ? _mm256_slli_epi16(words, 8) : words, 8);
    } else {
      return _mm256_and_si256(_mm256_srli_epi32(words, 4 * pair), _mm256_set1_epi32(0x000f000f));
    }
  }
  template <DType kType>
  static I pairs(Words words, int pair) {
    return {pairs8<kType>(words.lo, pair), pairs8<kType>(words.hi, pair)};
  }
  static I multiply_pairs(I a, I b, I sum) {
    return add_int({_mm256_madd_epi16(a.lo, b.lo), _mm256_madd_epi16(a.hi, b.hi)}, sum);
  }
  using Integers = PairIntegers<Avx2>;
};

}  // namespace

constinit const Ops kAvx2Ops = Kernels<Avx2>::table("avx2");
constinit const IntegerOps kAvx2IntegerOps = Kernels<Avx2>::integer_table("avx2");

}  // namespace dsm::kernels
