#include "worker/model/mlp.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/group_experts.h"

namespace dsm::model {

using device::allocate;
using device::allocate_shared;

namespace {

int inputs_of(const kernels::SegmentedMatrix& w) {
  return w.offset[w.count - 1] + w.part[w.count - 1].k;
}

// Who makes groups of the router's choice. The host, who waits for it, where adapters add slots to
// a product.
bool groups_on_device(const Step& step) {
  return step.adapted.empty();
}

}  // namespace

Mlp::Mlp(Step& step)
    : experts_(experts_of(step.c.num_experts, step.rank, step.ranks, step.expert_parallel)) {
  const ModelConfig& c = step.c;
  if (step.quantises && step.adapted.takes_any()) {
    throw std::logic_error("adapters are added to products of activations that are not rounded");
  }
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const std::size_t slots = t * (1 + static_cast<std::size_t>(c.experts_per_token));
  if (c.num_experts > 0) {
    router_logits_ = allocate<float>(
        step.backend, t * static_cast<std::size_t>(kernels::round_up(c.num_experts, 16)));
    on_device_ = make_routing(step, false);
    if (step.adapted.takes_any()) on_host_ = make_routing(step, true);
  }
  const int dense = c.intermediate_size / step.ranks;
  const int expert =
      step.expert_parallel ? c.moe_intermediate_size : c.moe_intermediate_size / step.ranks;
  const int experts = std::max(c.shared_width() / step.ranks, expert);
  of_dense_.stride = kernels::round_up(dense, 32);
  of_experts_.stride = kernels::round_up(experts, 32);
  of_dense_.rows = of_experts_.rows =
      allocate<float>(step.backend, std::max(t * static_cast<std::size_t>(of_dense_.stride),
                                             slots * static_cast<std::size_t>(of_experts_.stride)));
  of_dense_.fp8 = step.fp8_rows(t, static_cast<std::size_t>(dense));
  if (c.num_experts > 0) {
    of_experts_.fp8 = step.fp8_rows(slots, static_cast<std::size_t>(experts));
  }
  if (step.quantises && c.num_experts > 0) {
    const std::vector<float> ones(slots, 1.0F);
    ones_ = allocate<float>(step.backend, slots);
    step.backend.write(ones_, ones.data(), slots * sizeof ones[0]);
  }
}

Mlp::Routing Mlp::make_routing(const Step& step, bool for_host) const {
  const auto take = [&]<class T>(T*& to, std::size_t count) {
    to = for_host ? allocate_shared<T>(step.backend, count) : allocate<T>(step.backend, count);
  };
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto top_k = static_cast<std::size_t>(step.c.experts_per_token);
  Routing made;
  take(made.chosen, t * top_k);
  take(made.weights, t * top_k);
  made.groups = {.chosen = made.chosen,
                 .weights = made.weights,
                 .first_expert = experts_.begin,
                 .experts = experts_.size(),
                 .top_k = step.c.experts_per_token};
  take(made.groups.token, t * (1 + top_k));
  take(made.groups.weight, t * (1 + top_k));
  take(made.groups.groups, 1 + static_cast<std::size_t>(experts_.size()));
  take(made.groups.slot, t * (1 + top_k));
  return made;
}

void Mlp::run(Step& step, int layer, const LayerWeights& w) {
  const bool dense = w.router.n == 0 && w.gate_up.size() == 1;
  const Hidden& hidden = w.router.n == 0 ? of_dense_ : of_experts_;
  step.norm(w.mlp_norm, dense ? step.next(w.gate_up[0]) : NextProducts{});
  everyone_ = {0, step.tokens};
  const bool on_device = groups_on_device(step);
  const kernels::GroupExpertsParams* routing =
      w.router.n > 0 ? &route(step, w, on_device).groups : nullptr;
  const auto count = static_cast<int>(w.gate_up.size());
  const Step::Input input = step.input(w.gate_up[0], step.normed, step.c.hidden_size, dense);
  kernels::GateUpParams gate_up{.x = input.x,
                                .ldx = step.c.hidden_size,
                                .token = step.slot_token,
                                .weight = step.slot_weight,
                                .groups = &everyone_,
                                .w = w.gate_up.data(),
                                .group_count = count,
                                .h = hidden.rows,
                                .ldh = hidden.stride,
                                .x_fp8 = input.fp8};
  const NextProducts after = dense ? step.next(w.down[0].part[0]) : NextProducts{};
  gate_up.for_products = after.products;
  gate_up.taken = after.taken;
  if (routing != nullptr) {
    gate_up.token = routing->token;
    // Where activations are rounded to FP8, they are before the router's weight goes in.
    gate_up.weight = step.quantises ? ones_ : routing->weight;
    gate_up.groups = routing->groups;
    if (on_device) gate_up.routing = routing;
  }
  step.adapted.gate_up(layer, step.tokens, gate_up);
  step.backend.gate_up(gate_up);
  if (step.quantises) round_hidden(step, w, hidden, routing, after);
  kernels::RowParallelParams down{.h = hidden.rows,
                                  .ldh = hidden.stride,
                                  .token = gate_up.token,
                                  .groups = gate_up.groups,
                                  .w = w.down.data(),
                                  .group_count = count,
                                  .h_fp8 = hidden.fp8,
                                  .routing = gate_up.routing};
  step.adapted.row_parallel(layer, &AdapterLayer::down, down);
  step.add_row_parallel(down);
}

void Mlp::round_hidden(Step& step, const LayerWeights& w, const Hidden& hidden,
                       const kernels::GroupExpertsParams* routing, const NextProducts& after) {
  step.round_rows(hidden.rows, hidden.stride, inputs_of(w.down[0]), hidden.fp8, after);
  if (routing == nullptr || routing->experts == 0) return;
  // Experts' slots stand one after the other, and experts are of one width.
  step.round_slots(hidden.rows, hidden.stride, inputs_of(w.down[1]), *routing, hidden.fp8);
}

const Mlp::Routing& Mlp::route(Step& step, const LayerWeights& w, bool on_device) {
  const ModelConfig& c = step.c;
  Routing& routing = on_device ? on_device_ : on_host_;
  routing.groups.tokens = step.tokens;
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
                       .chosen = routing.chosen,
                       .weights = routing.weights});
  if (on_device) {
    step.backend.group_experts(routing.groups);
  } else {
    step.backend.wait_within_step();
    kernels::group_experts(routing.groups);
  }
  return routing;
}

}  // namespace dsm::model
