// Numbers as the kernels take them apart, for the device and, so that tests need none, for the
// host. exp, sigmoid and rounding to FP8 are the CPU's (kernels/cpu), bit by bit: nothing here may
// be contracted (nvcc -fmad=false), every fused multiply-add is written out.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include "kernels/cuda/ptx.cuh"
#define DSM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DSM_HOST_DEVICE inline
#endif

namespace dsm::kernels::cuda {

DSM_HOST_DEVICE float as_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}
DSM_HOST_DEVICE std::uint32_t as_bits(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

// exp16 of kernels/cpu/product.h.
DSM_HOST_DEVICE float exp_of(float x) {
  const float magic = 12582912.0F;
  x = x > -86.0F ? x : -86.0F;
  const float shifted = fmaf(x, 1.44269504F, magic);
  const float n = shifted - magic;
  float r = fmaf(n, -0.693359375F, x);
  r = fmaf(n, 2.12194440e-4F, r);
  float p = 1.0F / 5040;
  p = fmaf(p, r, 1.0F / 720);
  p = fmaf(p, r, 1.0F / 120);
  p = fmaf(p, r, 1.0F / 24);
  p = fmaf(p, r, 1.0F / 6);
  p = fmaf(p, r, 0.5F);
  p = fmaf(p, r, 1.0F);
  p = fmaf(p, r, 1.0F);
  return as_float(as_bits(p) + (as_bits(shifted) << 23));
}

DSM_HOST_DEVICE float sigmoid_of(float x) {
  const float y = 0.0F - x;
  return 1.0F / (1.0F + exp_of(y < 88.0F ? y : 88.0F));
}

// The FP8 value (E4M3) nearest to x, on a tie the even one; |x| is at most 448.
DSM_HOST_DEVICE float nearest_e4m3_of(float x) {
  if (fabsf(x) < 0x1p-6F) {
    const float magic = 0x1.8p14F;
    return (x + magic) - magic;
  }
  std::uint32_t bits = as_bits(x);
  bits += 0x7ffffU + (bits >> 20 & 1U);
  return as_float(bits & 0xfff00000U);
}

// The scale of a block of activations by its largest magnitude.
DSM_HOST_DEVICE float activation_scale_of(float largest, bool power_of_two) {
  const float scale = (largest > 1e-4F ? largest : 1e-4F) / 448.0F;
  if (!power_of_two) return scale;
  return as_float((as_bits(scale) + 0x7fffffU) & 0x7f800000U);
}

// Two BF16 values in one register, the first in the low half, each the nearest to its argument.
DSM_HOST_DEVICE std::uint32_t bf16_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  return nearest_bf16x2(first, second);
#else
  const auto nearest = [](float x) {
    const std::uint32_t bits = as_bits(x);
    return (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
  };
  return nearest(first) | nearest(second) << 16;
#endif
}
DSM_HOST_DEVICE float first_of(std::uint32_t pair) {
  return as_float(pair << 16);
}
DSM_HOST_DEVICE float second_of(std::uint32_t pair) {
  return as_float(pair & 0xffff0000U);
}

// Two sums of BF16 values that are BF16 values.
DSM_HOST_DEVICE std::uint32_t sum_of_bf16_pairs(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  return fma_bf16x2(a, 0x3f803f80U, b);  // times 1
#else
  return as_bits(first_of(a) + first_of(b)) >> 16 |
         (as_bits(second_of(a) + second_of(b)) & 0xffff0000U);
#endif
}

// What of `word` is in `mask`, and `bits`.
DSM_HOST_DEVICE std::uint32_t with_bits(std::uint32_t word, std::uint32_t mask,
                                        std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return and_or(word, mask, bits);
#else
  return (word & mask) | bits;
#endif
}

// a b + c of two BF16 values each, rounded once. (On the CPU a tie may be broken by the rounding to
// FP32 before.)
DSM_HOST_DEVICE std::uint32_t fma_of_bf16_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  return fma_bf16x2(a, b, c);
#else
  return bf16_pair(std::fma(first_of(a), first_of(b), first_of(c)),
                   std::fma(second_of(a), second_of(b), second_of(c)));
#endif
}

// Four bytes out of eight, a's and then b's: the lowest digit of `which` is the lowest byte's
// place.
DSM_HOST_DEVICE std::uint32_t bytes_of(std::uint32_t a, std::uint32_t b, unsigned which) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, which);
#else
  const std::uint64_t both = std::uint64_t{b} << 32 | a;
  std::uint32_t taken = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned from = which >> (4 * i) & 7U;
    taken |= static_cast<std::uint32_t>(both >> (8 * from) & 0xffU) << (8 * i);
  }
  return taken;
#endif
}

// What x becomes in FP8 with a scale: the value nearest to the quotient, which counts as 448 beyond
// that.
DSM_HOST_DEVICE float e4m3_quotient_of(float x, float scale) {
  float value = x / scale;
  value = value > 448.0F ? 448.0F : value;
  value = value < -448.0F ? -448.0F : value;
  return nearest_e4m3_of(value);
}

// The bits of an FP8 value (E4M3) that x is.
DSM_HOST_DEVICE std::uint8_t bits_of_e4m3(float x) {
  const std::uint32_t sign = as_bits(x) >> 24 & 0x80U;
  const float magnitude = fabsf(x);
  const std::uint32_t bits = magnitude < 0x1p-6F ? static_cast<std::uint32_t>(magnitude * 0x1p9F)
                                                 : (as_bits(magnitude) >> 20) - (120U << 3);
  return static_cast<std::uint8_t>(sign | bits);
}

// The bits of two FP8 values (E4M3), the first in the low byte, each the nearest to its argument,
// on a tie the even one; beyond 448 that. Devices from 8.9 on. Of values that become zero the sign
// may differ from that of e4m3_quotient_of().
DSM_HOST_DEVICE std::uint32_t e4m3_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  return nearest_e4m3x2(first, second);
#else
  return bits_of_e4m3(e4m3_quotient_of(first, 1.0F)) |
         static_cast<std::uint32_t>(bits_of_e4m3(e4m3_quotient_of(second, 1.0F))) << 8;
#endif
}

// Two FP8 values (bits of E4M3 that are numbers) times 2^-120 as BF16, exactly: exponent and
// fraction move to BF16's places, subnormals included. They are byte `at` of each word.
DSM_HOST_DEVICE std::uint32_t small_bf16_pair_of_e4m3(std::uint32_t first, std::uint32_t second,
                                                      unsigned at = 0) {
  const std::uint32_t bytes = bytes_of(first, second, at << 4 | (at + 4) << 12);
  return (bytes & 0x80008000U) | (bytes & 0x7f007f00U) >> 4;
}

// The values themselves, which one multiplication makes of those.
DSM_HOST_DEVICE std::uint32_t bf16_pair_of_e4m3(std::uint32_t first, std::uint32_t second,
                                                unsigned at = 0) {
  const std::uint32_t small = small_bf16_pair_of_e4m3(first, second, at);
#if defined(__CUDA_ARCH__)
  const std::uint32_t scale = 0x7b807b80U;  // 2^120 twice
  const std::uint32_t zero = 0x80008000U;   // -0 twice, which changes no sum
  return fma_bf16x2(small, scale, zero);
#else
  return as_bits(first_of(small) * 0x1p120F) >> 16 |
         (as_bits(second_of(small) * 0x1p120F) & 0xffff0000U);
#endif
}

}  // namespace dsm::kernels::cuda
