#include "bench/gpu/expert_bench.h"

#include <algorithm>

namespace dsm::bench {

using namespace kernels;  // parameter structs

ExpertBench::ExpertBench(Setting& on) : on_(on) {
  const model::ModelConfig& c = on.config;
  if (c.num_experts == 0) return;
  router_ = on.matrix(c.num_experts, c.hidden_size, DType::kBF16);
  for (int e = 0; e <= c.num_experts; ++e) {
    const int width = e == 0 ? c.shared_width() : c.moe_intermediate_size;
    experts_up_.push_back(
        on.matrix(2 * static_cast<int>(round_up(width, 32)), c.hidden_size, DType::kBF16));
    experts_down_.push_back({{on.matrix(c.hidden_size, width, DType::kBF16)}, {}, 1});
  }
}

void ExpertBench::run(int rows) {
  if (on_.config.num_experts == 0) return;
  mixture(rows);
  routed_mixture(rows);
  router(rows);
}

// The shared experts with all tokens, and of the others those that even choices give.
void ExpertBench::mixture(int rows) {
  std::vector<Group> groups = {{0, rows}};
  std::vector<std::int32_t> token(size(rows));
  for (int t = 0; t < rows; ++t) token[size(t)] = t;
  std::vector<PackedMatrix> up = {experts_up_[0]};
  std::vector<SegmentedMatrix> down = {experts_down_[0]};
  Work up_work = product_work(rows, up[0].n, up[0].k, 2);
  Work down_work = product_work(rows, on_.config.hidden_size, on_.config.shared_width(), 2);
  for (int e = 0; e < on_.config.num_experts; ++e) {
    const int begin = static_cast<int>(token.size());
    for (int t = 0; t < rows; ++t) {
      if ((e - choice(t, 0) + on_.config.num_experts) % on_.config.num_experts <
          on_.config.experts_per_token) {
        token.push_back(t);
      }
    }
    const int end = static_cast<int>(token.size());
    if (begin == end) continue;
    groups.push_back({begin, end});
    up.push_back(experts_up_[size(e + 1)]);
    down.push_back(experts_down_[size(e + 1)]);
    up_work += product_work(end - begin, up.back().n, up.back().k, 2);
    down_work +=
        product_work(end - begin, on_.config.hidden_size, on_.config.moe_intermediate_size, 2);
  }
  const std::vector<float> ones(token.size(), 1.0F);
  const std::int64_t ldh =
      round_up(std::max(on_.config.shared_width(), on_.config.moe_intermediate_size), 32);
  const int count = static_cast<int>(groups.size());
  on_.measure("experts: gate, up and SwiGLU", rows, up_work, [&] {
    on_.backend->gate_up({.x = on_.x,
                          .ldx = on_.config.hidden_size,
                          .token = token.data(),
                          .weight = ones.data(),
                          .groups = groups.data(),
                          .w = up.data(),
                          .group_count = count,
                          .h = on_.y,
                          .ldh = ldh});
  });
  on_.measure("experts: down and sum", rows, down_work, [&] {
    on_.backend->row_parallel({.h = on_.x,
                               .ldh = ldh,
                               .token = token.data(),
                               .groups = groups.data(),
                               .w = down.data(),
                               .group_count = count,
                               .tokens = rows,
                               .y = on_.y,
                               .ldy = on_.config.hidden_size});
  });
}

// The same, of groups that the device makes, as steps without adapters are computed.
void ExpertBench::routed_mixture(int rows) {
  const int top_k = on_.config.experts_per_token;
  const std::size_t slots = size(rows) * size(1 + top_k);
  std::vector<std::int32_t> chosen;
  std::vector<int> tokens_of(size(on_.config.num_experts));
  for (int t = 0; t < rows; ++t) {
    for (int i = 0; i < top_k; ++i) {
      chosen.push_back(choice(t, i));
      ++tokens_of[size(choice(t, i))];
    }
    std::sort(chosen.end() - top_k, chosen.end());
  }
  auto* choices = device::allocate<std::int32_t>(*on_.backend, chosen.size());
  on_.backend->write(choices, chosen.data(), chosen.size() * sizeof chosen[0]);
  const GroupExpertsParams routing = {
      .chosen = choices,
      .weights = on_.x,
      .tokens = rows,
      .experts = on_.config.num_experts,
      .top_k = top_k,
      .token = device::allocate<std::int32_t>(*on_.backend, slots),
      .weight = device::allocate<float>(*on_.backend, slots),
      .groups = device::allocate<Group>(*on_.backend, size(1 + on_.config.num_experts)),
      .slot = device::allocate<std::int32_t>(*on_.backend, slots)};
  on_.measure("experts: groups on the device", rows, {16.0 * static_cast<double>(slots), 0},
              [&] { on_.backend->group_experts(routing); });
  Work up_work = product_work(rows, experts_up_[0].n, experts_up_[0].k, 2);
  Work down_work = product_work(rows, on_.config.hidden_size, on_.config.shared_width(), 2);
  for (std::size_t e = 0; e < tokens_of.size(); ++e) {
    if (tokens_of[e] == 0) continue;
    up_work += product_work(tokens_of[e], experts_up_[e + 1].n, on_.config.hidden_size, 2);
    down_work +=
        product_work(tokens_of[e], on_.config.hidden_size, on_.config.moe_intermediate_size, 2);
  }
  const std::int64_t ldh =
      round_up(std::max(on_.config.shared_width(), on_.config.moe_intermediate_size), 32);
  const int count = 1 + on_.config.num_experts;
  // A library wants to know how many rows there are, so it has no part in these.
  constexpr const char* kOther = ", few rows' kernel";
  on_.measure_product(
      "routed experts: gate, up and SwiGLU", rows, up_work,
      [&](device::Backend& backend) {
        backend.gate_up({.x = on_.x,
                         .ldx = on_.config.hidden_size,
                         .token = routing.token,
                         .weight = routing.weight,
                         .groups = routing.groups,
                         .w = experts_up_.data(),
                         .group_count = count,
                         .h = on_.y,
                         .ldh = ldh,
                         .routing = &routing});
      },
      kOther);
  on_.measure_product(
      "routed experts: down and sum", rows, down_work,
      [&](device::Backend& backend) {
        backend.row_parallel({.h = on_.x,
                              .ldh = ldh,
                              .token = routing.token,
                              .groups = routing.groups,
                              .w = experts_down_.data(),
                              .group_count = count,
                              .tokens = rows,
                              .y = on_.y,
                              .ldy = on_.config.hidden_size,
                              .routing = &routing});
      },
      kOther);
}

void ExpertBench::router(int rows) {
  on_.linear("router's logits", router_, 2, rows);
  auto* chosen = device::allocate_shared<std::int32_t>(*on_.backend, size(rows) * kMaxTopK);
  auto* weights = device::allocate_shared<float>(*on_.backend, size(rows) * kMaxTopK);
  const double bytes = rows * (4.0 * on_.config.num_experts + 8.0 * on_.config.experts_per_token);
  on_.measure("router", rows, {bytes, 0}, [&] {
    on_.backend->router({.logits = on_.x,
                         .ld = on_.config.num_experts,
                         .rule = RouterRule::kSoftmax,
                         .tokens = rows,
                         .experts = on_.config.num_experts,
                         .groups = on_.config.num_groups,
                         .topk_groups = on_.config.topk_groups,
                         .top_k = on_.config.experts_per_token,
                         .scale = 1.0F,
                         .chosen = chosen,
                         .weights = weights});
  });
}

}  // namespace dsm::bench
