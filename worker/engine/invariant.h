// Conditions that only a bug can break. They stay on in release builds: going on with a wrong block
// table would mix the contexts of two users.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace dsm::engine {

inline void invariant(bool holds, const char* what) {
  if (holds) [[likely]] {
    return;
  }
  std::fprintf(stderr, "invariant broken: %s\n", what);
  std::abort();
}

}  // namespace dsm::engine
