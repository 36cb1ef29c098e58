// Which tables this processor can run.
#include <string_view>

#include "kernels/cpu/tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dsm::kernels {
namespace {

constexpr const Ops* kTables[] = {
    &kGenericOps,
#if defined(__x86_64__)
    &kAvx2Ops,
    &kAvx512Ops,
#endif
};

std::size_t usable_tables() {
  std::size_t count = 1;
#if defined(__x86_64__)
  // The builtin also asks whether the system saves the wide registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    ++count;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) ++count;
  }
#endif
  return count;
}

constexpr const IntegerOps* kIntegerTables[] = {
    &kGenericIntegerOps,
#if defined(__x86_64__)
    &kAvx2IntegerOps,    &kAvx512IntegerOps, &kVnniIntegerOps, &kAmxIntegerOps,
#endif
};

std::size_t usable_integer_tables() {
  std::size_t count = usable_tables();
#if defined(__x86_64__)
  if (count == std::size(kTables) && __builtin_cpu_supports("avx512vnni")) {
    ++count;
    if (may_use_tiles(kAmxInt8)) ++count;
  }
#endif
  return count;
}

}  // namespace

#if defined(__x86_64__)
// CPUID leaf 7, subleaf 0, EDX: bit 24 is AMX-TILE (Intel's manual, volume 2A); GCC 12's builtin
// does not know the names. Tiles are 8 KiB of a thread's state, which Linux saves for processes
// that have asked for them (arch/x86/include/uapi/asm/prctl.h).
bool may_use_tiles(unsigned product) {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d >> product & 1U) == 0 || (d >> 24 & 1U) == 0) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::span<const Ops* const> available_ops() {
  return std::span(kTables).first(usable_tables());
}

const Ops& best_ops() {
  return *available_ops().back();
}

std::span<const IntegerOps* const> available_integer_ops() {
  static const std::size_t kUsable = usable_integer_tables();
  return std::span(kIntegerTables).first(kUsable);
}

const IntegerOps& integer_ops(const Ops& ops) {
  const auto all = available_integer_ops();
  if (&ops == &best_ops()) return *all.back();
  for (const IntegerOps* some : all) {
    if (std::string_view(some->name) == ops.name) return *some;
  }
  return *all.front();
}

}  // namespace dsm::kernels
