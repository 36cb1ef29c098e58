#include "worker/model/mlp.h"

#include <algorithm>

namespace dsm::model {

using device::allocate;

namespace {

int inputs_of(const kernels::SegmentedMatrix& w) {
  return w.offset[w.count - 1] + w.part[w.count - 1].k;
}

}  // namespace

Mlp::Mlp(Step& step)
    : experts_(experts_of(step.c.num_experts, step.rank, step.ranks, step.expert_parallel)),
      groups_(1 + static_cast<std::size_t>(experts_.size())) {
  const ModelConfig& c = step.c;
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto top_k = static_cast<std::size_t>(c.experts_per_token);
  router_logits_ = allocate<float>(
      step.backend, t * static_cast<std::size_t>(kernels::round_up(c.num_experts, 16)));
  chosen_ = device::allocate_shared<std::int32_t>(step.backend, t * top_k);
  chosen_weights_ = device::allocate_shared<float>(step.backend, t * top_k);
  const int expert =
      step.expert_parallel ? c.moe_intermediate_size : c.moe_intermediate_size / step.ranks;
  const int widest = std::max(std::max(c.intermediate_size, c.shared_width()) / step.ranks, expert);
  hidden_stride_ = kernels::round_up(widest, 32);
  hidden_ =
      allocate<float>(step.backend, t * (1 + top_k) * static_cast<std::size_t>(hidden_stride_));
  hidden_fp8_ = step.fp8_rows(t * (1 + top_k), static_cast<std::size_t>(widest));
}

void Mlp::run(Step& step, int layer, const LayerWeights& w) {
  step.norm(w.mlp_norm);
  groups_[0] = {0, step.tokens};
  if (w.router.n > 0) route(step, w);
  const auto count = static_cast<int>(w.gate_up.size());
  // Where activations are rounded to FP8, they are before the router's weight goes in.
  const Step::Input input = step.input(w.gate_up[0], step.normed, step.c.hidden_size);
  kernels::GateUpParams gate_up{input.x,         step.c.hidden_size,
                                step.slot_token, step.quantises ? step.slot_one : step.slot_weight,
                                groups_.data(),  w.gate_up.data(),
                                count,           hidden_,
                                hidden_stride_};
  gate_up.x_fp8 = input.fp8;
  step.adapted.gate_up(layer, step.tokens, gate_up);
  step.backend.gate_up(gate_up);
  for (std::size_t g = 0; step.quantises && g < w.down.size(); ++g) {
    const auto [begin, end] = groups_[g];
    step.round_rows(hidden_ + begin * hidden_stride_, hidden_stride_, end - begin,
                    inputs_of(w.down[g]), step.slot_weight + begin, hidden_fp8_, begin);
  }
  kernels::RowParallelParams down{.h = hidden_,
                                  .ldh = hidden_stride_,
                                  .groups = groups_.data(),
                                  .w = w.down.data(),
                                  .group_count = count,
                                  .h_fp8 = hidden_fp8_};
  step.adapted.row_parallel(layer, &AdapterLayer::down, down);
  step.add_row_parallel(down);
}

void Mlp::route(Step& step, const LayerWeights& w) {
  const ModelConfig& c = step.c;
  const std::int64_t ld = kernels::round_up(c.num_experts, 16);
  step.backend.linear({.x = step.normed,
                       .ldx = c.hidden_size,
                       .w = &w.router,
                       .y = router_logits_,
                       .ldy = ld,
                       .rows = step.tokens});
  step.backend.router({.logits = router_logits_,
                       .ld = ld,
                       .rule = c.router == RouterKind::kSoftmax ? kernels::RouterRule::kSoftmax
                                                                : kernels::RouterRule::kSigmoidBias,
                       .bias = w.router_bias,
                       .tokens = step.tokens,
                       .experts = c.num_experts,
                       .groups = c.num_groups,
                       .topk_groups = c.topk_groups,
                       .top_k = c.experts_per_token,
                       .normalise = c.normalise_topk,
                       .scale = static_cast<float>(c.routed_scale),
                       .chosen = chosen_,
                       .weights = chosen_weights_});
  step.backend.wait();
  group_by_expert(step);
}

// Sorts (token, choice) pairs of this rank's experts by expert, tokens rising within one.
void Mlp::group_by_expert(Step& step) {
  const int top_k = step.c.experts_per_token;
  const int pairs = step.tokens * top_k;
  const auto here = [&](int pair) {
    return chosen_[pair] >= experts_.begin && chosen_[pair] < experts_.end;
  };
  const auto group_of = [&](int pair) -> kernels::Group& {
    return groups_[1 + static_cast<std::size_t>(chosen_[pair] - experts_.begin)];
  };
  for (std::size_t g = 1; g < groups_.size(); ++g) groups_[g].end = 0;
  for (int i = 0; i < pairs; ++i) {
    if (here(i)) ++group_of(i).end;
  }
  int at = step.tokens;
  for (std::size_t g = 1; g < groups_.size(); ++g) {
    const int count = groups_[g].end;
    groups_[g] = {at, at};
    at += count;
  }
  for (int i = 0; i < pairs; ++i) {
    if (!here(i)) continue;
    const int slot = group_of(i).end++;
    step.slot_token[slot] = i / top_k;
    step.slot_weight[slot] = chosen_weights_[i];
  }
}

}  // namespace dsm::model
