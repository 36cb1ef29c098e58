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

// Elements [first, first + count) of what rotate() makes of x, which is `2 * rope.pairs` long.
inline void rotate_part(const float* x, int first, int count, float* y, const RopeTable& rope,
                        int position) {
  const float* c = rope.cos + static_cast<std::int64_t>(position) * rope.pairs;
  const float* s = rope.sin + static_cast<std::int64_t>(position) * rope.pairs;
  for (int i = 0; i < count; ++i) {
    const int at = first + i;
    const int pair = rope.halves ? at % rope.pairs : at / 2;
    const bool second = rope.halves ? at >= rope.pairs : at % 2 != 0;
    const float a = x[rope.halves ? pair : 2 * pair];
    const float b = x[rope.halves ? pair + rope.pairs : 2 * pair + 1];
    y[i] = second ? a * s[pair] + b * c[pair] : a * c[pair] - b * s[pair];
  }
}

}  // namespace
}  // namespace dsm::kernels
