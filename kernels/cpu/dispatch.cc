// Which tables this processor can run.
#include "kernels/cpu/tables.h"

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
    if (__builtin_cpu_supports("avx512f")) ++count;
  }
#endif
  return count;
}

}  // namespace

std::span<const Ops* const> available_ops() {
  return std::span(kTables).first(usable_tables());
}

const Ops& best_ops() {
  return *available_ops().back();
}

}  // namespace dsm::kernels
