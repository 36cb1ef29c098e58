// Rotary positions. kernels.h says why nothing here may be shared between instruction sets.
#pragma once

#include "kernels/params.h"

namespace dsm::kernels {
namespace {

// The pairs of x turned by the angles of `position`, stored with a step between elements. y may
// be x.
inline void rotate(const float* x, float* y, std::int64_t step, const RopeTable& rope,
                   int position) {
  const float* c = rope.cos + static_cast<std::int64_t>(position) * rope.pairs;
  const float* s = rope.sin + static_cast<std::int64_t>(position) * rope.pairs;
  const int next = rope.halves ? 1 : 2;            // from one pair to the next
  const int other = rope.halves ? rope.pairs : 1;  // from a pair's first element to its second
  for (int i = 0; i < rope.pairs; ++i) {
    const int at = i * next;
    const float a = x[at];
    const float b = x[at + other];
    y[at * step] = a * c[i] - b * s[i];
    y[(at + other) * step] = a * s[i] + b * c[i];
  }
}

}  // namespace
}  // namespace dsm::kernels
