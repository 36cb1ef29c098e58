// Which prompts' rows go over a packed past (attention_wide.h), and which pasts are packed at a
// time. It changes the bits: for the loose mode alone.
#pragma once

#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/attention_wide.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

// Rows from which on a past is packed: two thread blocks read it again then.
inline constexpr int kPackedRows = 2 * kPromptRows;

// Whether a GPU has the kernel for a cache: the one place to leave it out.
constexpr bool has_wide_attention(int major, const KvLayer& kv) {
  return major == 9 && wide_tile(kv).values > 0;
}

// Pasts and items that are launched together.
struct WideAttentionPart {
  int first_past = 0;
  int past_count = 0;
  int most_tiles = 0;
  int first_item = 0;
  int item_count = 0;
};
struct WideAttentionPlan {
  WideTile tile;
  std::vector<WidePast> pasts;  // tiles are numbered from 0 on in each part
  std::vector<WideItem> items;  // of a part those that see most first
  std::vector<WideAttentionPart> parts;
};

// Takes what it has out of plan.prompts, in whose order items stay. A part's tiles take up to
// `most_bytes`, and a past that alone takes more is left. Reuses the plan's lists.
void plan_wide_attention(const AttentionParams& params, std::int64_t most_bytes,
                         AttentionPlan& plan, WideAttentionPlan& wide);

}  // namespace dsm::kernels::cuda
