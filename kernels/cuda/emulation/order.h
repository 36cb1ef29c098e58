// What kernels tell of the order of their accesses (races.h); nothing in programs that nobody
// watches.
#pragma once

#include "kernels/cuda/emulation/races.h"

namespace dsm::emulation {

// Of functions that tell of a place, which is the kernel's that calls them.
#define DSM_INLINED [[gnu::always_inline]] inline

DSM_INLINED const void* here() {
  const void* pc = nullptr;
  asm volatile("lea 1f(%%rip), %0\n1:" : "=r"(pc));
  return pc;
}

// tell(&Races::fence, scope), as the running kernel's thread.
template <class... Params, class... Args>
DSM_INLINED void tell(void (Races::*what)(Params...), const Args&... args) {
  if (watching != nullptr) (watching->*what)(args...);
}
// The same of what has a place.
template <class... Params, class... Args>
DSM_INLINED void tell_here(void (Races::*what)(Params...), const Args&... args) {
  if (watching != nullptr) (watching->*what)(args..., here());
}

}  // namespace dsm::emulation
