// Which instructions for BF16 this processor has.
#include "kernels/cpu/bf16_ops.h"

#include "kernels/cpu/tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dsm::kernels {
namespace {

#if defined(__x86_64__)
// CPUID leaf 7: subleaf 0, EDX bit 22 is AMX-BF16 and bit 24 AMX-TILE (Intel's manual, volume 2A);
// GCC 12's builtin does not know their names. Tiles are 8 KiB of a thread's state, which Linux
// saves for processes that have asked for them (arch/x86/include/uapi/asm/prctl.h).
bool may_use_tiles() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d >> 22 & 1U) == 0 || (d >> 24 & 1U) == 0) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

int steps_of(const SegmentedMatrix& w) {
  int steps = 0;
  for (int s = 0; s < w.count; ++s) steps += steps_of(w.part[s].k);
  return steps;
}

const Bf16Ops* bf16_ops() {
#if defined(__x86_64__)
  // Rows become operands by AVX-512's conversion, which every processor with such tiles has.
  static const bool kUsable = __builtin_cpu_supports("avx512f") != 0 &&
                              __builtin_cpu_supports("avx512bf16") != 0 && may_use_tiles();
  return kUsable ? &kAmxOps : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace dsm::kernels
