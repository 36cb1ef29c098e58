// Which rows of attention go through the cache together, as prompts', and which in splits side by
// side. It changes the time, never the bits.
#pragma once

#include <vector>

#include "kernels/params.h"

namespace dsm::kernels::cuda {

struct AttentionPlan {
  std::vector<AttentionItem> prompts;  // up to kPromptRows rows each, those that see most first
  std::vector<AttentionItem> rest;     // up to kAttentionRows rows, in the order of params.items
};

constexpr int last_position(const AttentionParams& p, const AttentionItem& item) {
  return p.places[(item.row_end - 1) / p.heads].position;
}

// Of params whose lists are the host's. `processors` and `shared_bytes`: of the device, and of one
// of its thread blocks at most. Reuses the plan's lists.
void plan_attention(const AttentionParams& params, int processors, std::int64_t shared_bytes,
                    bool exact, AttentionPlan& plan);

}  // namespace dsm::kernels::cuda
