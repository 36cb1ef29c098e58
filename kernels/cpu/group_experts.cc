#include "kernels/group_experts.h"

#include <algorithm>

namespace dsm::kernels {

void group_experts(const GroupExpertsParams& p) {
  for (int t = 0; t < p.tokens; ++t) {
    p.token[t] = t;
    p.weight[t] = 1.0F;
    p.slot[t * (1 + p.top_k)] = t;
  }
  const int pairs = p.tokens * p.top_k;
  // Of a pair of a token and a choice; null: its expert has none.
  const auto group_of = [&](int pair) -> Group* {
    const int expert = p.chosen[pair] - p.first_expert;
    return expert >= 0 && expert < p.experts ? p.groups + 1 + expert : nullptr;
  };
  std::fill_n(p.groups, 1 + p.experts, Group{});
  p.groups[0] = {0, p.tokens};
  for (int i = 0; i < pairs; ++i) {
    if (Group* group = group_of(i)) ++group->end;
  }
  int at = p.tokens;
  for (int g = 1; g <= p.experts; ++g) {
    const int count = p.groups[g].end;
    p.groups[g] = {at, at};
    at += count;
  }
  for (int i = 0; i < pairs; ++i) {
    Group* group = group_of(i);
    const int slot = group != nullptr ? group->end++ : -1;
    p.slot[i / p.top_k * (1 + p.top_k) + 1 + i % p.top_k] = slot;
    if (slot < 0) continue;
    p.token[slot] = i / p.top_k;
    p.weight[slot] = p.weights[i];
  }
}

}  // namespace dsm::kernels
