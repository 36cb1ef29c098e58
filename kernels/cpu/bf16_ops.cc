// Which instructions for BF16 this processor has.
#include "kernels/cpu/bf16_ops.h"

#include "kernels/cpu/tables.h"

namespace dsm::kernels {

int steps_of(const SegmentedMatrix& w) {
  int steps = 0;
  for (int s = 0; s < w.count; ++s) steps += steps_of(w.part[s].k);
  return steps;
}

const Bf16Ops* bf16_ops() {
#if defined(__x86_64__)
  // Rows become operands by AVX-512's conversion, which every processor with such tiles has.
  static const bool kUsable = __builtin_cpu_supports("avx512f") != 0 &&
                              __builtin_cpu_supports("avx512bf16") != 0 && may_use_tiles(kAmxBf16);
  return kUsable ? &kAmxOps : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace dsm::kernels
