// The operators in plain C++: the definition of the right answer, for any processor. fmaf is exact
// with or without hardware for it (slow without).
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

struct Generic {
  // The vector extension lets the compiler use what the baseline has; every operation is per lane.
  typedef float F __attribute__((vector_size(64)));
  typedef std::uint32_t U __attribute__((vector_size(64)));
  typedef std::int32_t I __attribute__((vector_size(64)));  // also of 16 bits, in pairs
  using Words = U;
  static constexpr int kAccumulators = 4;

  static F load(const float* p) {
    F x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
  static F set(float x) { return F{} + x; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F fma(F a, F b, F c) {
    F y;
    for (int i = 0; i < kLanes; ++i) y[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return y;
  }
  static F add_exponent(F p, F shifted) {
    return reinterpret_cast<F>(reinterpret_cast<U>(p) + (reinterpret_cast<U>(shifted) << 23));
  }
  // 16 values of E4M3, each times 2^-120: the bits of exponent and fraction are only moved, and the
  // copies of the sign that widening put before them are taken out. Exponents of zero become
  // FP32's, so these small values are right, too.
  static F load_e4m3(const char* p) {
    U x;
    for (int i = 0; i < kLanes; ++i) {
      x[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<signed char>(p[i])));
    }
    return reinterpret_cast<F>(x << 20 & 0x87ffffffU);
  }
  static void load_pairs(const char* p, F& even, F& odd) {
    U x;
    __builtin_memcpy(&x, p, sizeof x);
    even = reinterpret_cast<F>(x << 16);
    odd = reinterpret_cast<F>(x & 0xffff0000U);
  }
  static Words load_words(const char* p) {
    U x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }

  static I set_int(std::int32_t x) { return I{} + x; }
  static I add_int(I a, I b) { return a + b; }
  static F to_float(I x) { return __builtin_convertvector(x, F); }
  // Of 16 words the numbers of inputs 2 * pair and 2 * pair + 1 (place_in_word) as pairs of 16
  // bits; of INT4 each plus 8.
  template <DType kType>
  static I pairs(Words words, int pair) {
    if constexpr (kType == DType::kInt8) {
      const U even = reinterpret_cast<U>(reinterpret_cast<I>(words << (24 - 8 * pair)) >> 24);
      const U odd = reinterpret_cast<U>(reinterpret_cast<I>(words << (8 - 8 * pair)) >> 24);
      return reinterpret_cast<I>((even & 0xffffU) | odd << 16);
    } else {
      return reinterpret_cast<I>(words >> (4 * pair) & 0x000f000fU);
    }
  }
  // sum + the products of both numbers of pairs.
  static I multiply_pairs(I a, I b, I sum) {
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
  }
  using Integers = PairIntegers<Generic>;
};

}  // namespace

constinit const Ops kGenericOps = Kernels<Generic>::table("generic");
constinit const IntegerOps kGenericIntegerOps = Kernels<Generic>::integer_table("generic");

}  // namespace dsm::kernels
