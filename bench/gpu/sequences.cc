#include "bench/gpu/sequences.h"

#include <algorithm>

namespace dsm::bench {

using kernels::kAttentionRows;
using kernels::kKvBlock;

Sequences make_sequences(int sequences, int tokens, int start, int blocks, int kv_heads,
                         int heads) {
  Sequences made;
  made.tables.resize(static_cast<std::size_t>(sequences));
  for (int s = 0; s < sequences; ++s) {
    std::vector<std::int32_t>& table = made.tables[static_cast<std::size_t>(s)];
    for (int b = 0; b < blocks; ++b) table.push_back(s * blocks + b);
    for (int t = start; t < start + tokens; ++t) {
      made.places.push_back({t, table[static_cast<std::size_t>(t / kKvBlock)]});
    }
    const int end = (s + 1) * tokens * heads;
    for (int h = 0; h < kv_heads; ++h) {
      for (int at = s * tokens * heads; at < end; at += kAttentionRows) {
        made.items.push_back({at, std::min(end, at + kAttentionRows), table.data(), h});
      }
    }
  }
  return made;
}

}  // namespace dsm::bench
