// Noise, scores and probabilities of tokens, for the host and for kernels. They have the same bits
// everywhere: operations are those that IEEE 754 rounds correctly, in the order that is written
// here (nothing may be contracted), without a C library's log and exp, and what is added up are
// integers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/numbers.h"

namespace dsm::kernels {

DSM_HOST_DEVICE double double_of(std::uint64_t bits) {
#if defined(__CUDA_ARCH__)
  return __longlong_as_double(static_cast<long long>(bits));
#else
  double x = 0;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}
DSM_HOST_DEVICE std::uint64_t bits_of(double x) {
#if defined(__CUDA_ARCH__)
  return static_cast<std::uint64_t>(__double_as_longlong(x));
#else
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

// Of a positive normal number: 2 artanh(s), s = (m - 1) / (m + 1), of its fraction m between the
// root of 1/2 and that of 2, and the logarithm of its power of two.
DSM_HOST_DEVICE double log_of(double x) {
  const std::uint64_t bits = bits_of(x);
  std::uint64_t fraction = bits & 0xfffffffffffffULL;
  const bool above = fraction > 0x6a09e667f3bccULL;  // the root of 2
  const int exponent = static_cast<int>(bits >> 52) - 1023 + (above ? 1 : 0);
  fraction |= (above ? std::uint64_t{1022} : std::uint64_t{1023}) << 52;
  const double f = double_of(fraction) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double p = 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  return exponent * 0x1.62e42fefa39efp-1 + 2.0 * (s + s * (z * p));
}

// Of -1000 < x <= 0: 2^n and the series of what is left, at most half of log 2.
DSM_HOST_DEVICE double exp_of(double x) {
  const double magic = 0x1.8p52;  // adding it rounds to an integer
  const double n = (x * 0x1.71547652b82fep+0 + magic) - magic;
  double r = x - n * 0x1.62e42fefa39p-1;  // log 2 in two parts: the first product is exact
  r = r - n * 0x1.de6af278ece6p-46;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * double_of(static_cast<std::uint64_t>(static_cast<int>(n) + 1023) << 52);
}

// mix64() of base/random.h.
DSM_HOST_DEVICE std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
DSM_HOST_DEVICE std::uint64_t noise_key(std::uint64_t seed, std::int64_t position) {
  return mixed(mixed(seed) + static_cast<std::uint64_t>(position));
}
DSM_HOST_DEVICE std::uint64_t noise_bits(std::uint64_t key, std::int32_t token) {
  return mixed(key ^ mixed(static_cast<std::uint64_t>(token)));
}

// Gumbel's: -log(-log(u)) of a uniform u in (0, 1), of 53 bits.
DSM_HOST_DEVICE double noise_of(std::uint64_t bits) {
  const double u = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
  return -log_of(-log_of(u < 1.0 ? u : 1.0 - 0x1p-53));
}
// No less than that. With k leading ones u is at most 1 - 2^-(k+1), and the noise at most k + 1
// times log 2.
DSM_HOST_DEVICE double most_noise(std::uint64_t bits) {
#if defined(__CUDA_ARCH__)
  const int ones = __clzll(static_cast<long long>(~bits));
#else
  const int ones = ~bits == 0 ? 64 : __builtin_clzll(~bits);
#endif
  return 0.7 * (ones + 1);
}

inline constexpr std::int32_t kNoToken = 0x7fffffff;

// The highest value so far with its token; of equal ones the lowest.
template <class T>
struct Leader {
  T value = -INFINITY;
  std::int32_t token = kNoToken;

  DSM_HOST_DEVICE void meet(T other, std::int32_t other_token) {
    if (!(other > value || (other == value && other_token < token))) return;
    value = other;
    token = other_token;
  }
};

// A score is logit / temperature + noise; most logits are so low that no noise could help them.
DSM_HOST_DEVICE void draw(Leader<double>& leader, float logit, std::int32_t token,
                          std::uint64_t key, double temperature) {
  const double scaled = static_cast<double>(logit) / temperature;
  const std::uint64_t bits = noise_bits(key, token);
  if (scaled + most_noise(bits) < leader.value) return;
  leader.meet(scaled + noise_of(bits), token);
}

// A token's probability in units of 2^-42 of the likeliest one's; kMaxVocab of them have a sum.
inline constexpr double kMassOfBest = 0x1p42;
DSM_HOST_DEVICE std::uint64_t mass_of(float logit, float best, double temperature) {
  const double x = (static_cast<double>(logit) - best) / temperature;
  if (!(x > -40.0)) return 0;
  return static_cast<std::uint64_t>(exp_of(x) * kMassOfBest);
}
// That a token has at least to have.
DSM_HOST_DEVICE std::uint64_t least_mass(float min_p) {
  return static_cast<std::uint64_t>(ceil(min_p * kMassOfBest));
}
// That the likeliest tokens together have at least, of all that there is.
DSM_HOST_DEVICE std::uint64_t nucleus_mass(float top_p, std::uint64_t all) {
  const double mass = ceil(top_p * static_cast<double>(all));
  return mass < 1.0 ? 1 : static_cast<std::uint64_t>(mass);
}

}  // namespace dsm::kernels
