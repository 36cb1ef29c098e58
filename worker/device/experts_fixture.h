// A mixture of experts whose groups are the caller's lists, for tests of backends.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {

// A mixture of experts: every token is in the first group, and in some of the others.
struct Experts {
  static constexpr int kHidden = 96;
  static constexpr int kWidth = 144;  // of a hidden part: not a multiple of 32
  static constexpr int kOut = 208;
  std::vector<Weight> gate_up;
  std::vector<Weight> down;
  std::vector<kernels::Group> groups;
  std::vector<std::int32_t> token;
  std::vector<float> weight;
  int tokens;

  Experts(int count, int experts, kernels::DType dtype) : tokens(count) {
    std::mt19937 random(11);
    for (int t = 0; t < tokens; ++t) token.push_back(t);
    groups.push_back({0, tokens});
    for (int e = 0; e < experts; ++e) {
      const auto begin = static_cast<int>(token.size());
      for (int t = 0; t < tokens; ++t) {
        if (e != 1 && random() % 3 == 0) token.push_back(t);  // expert 1 has none
      }
      groups.push_back({begin, static_cast<int>(token.size())});
    }
    weight = random_floats(token.size(), 12);
    for (int e = 0; e <= experts; ++e) {
      // The shared expert is in BF16 and wider, as some checkpoints mix types.
      const kernels::DType type = e == 0 ? kernels::DType::kBF16 : dtype;
      const auto seed = static_cast<unsigned>(700 + 2 * e);
      gate_up.push_back(dsm::device::weight(e == 0 ? 640 : 320, kHidden, type, seed));
      down.push_back(dsm::device::weight(kOut, e == 0 ? 300 : kWidth, type, seed));
    }
  }

  // What adapters add: to the first group's gate and up products, and to the sums of some tokens.
  struct Adapted {
    std::vector<float> start;  // [tokens, panels * 64 of the first group]
    std::vector<Weight> down;
    std::vector<kernels::Group> groups;
    std::vector<std::int32_t> token;
  };

  // The output [tokens, kOut] for tokens' rows of x.
  std::vector<float> run(const Side& side, const std::vector<float>& x,
                         const Adapted* adapted = nullptr) const {
    std::vector<kernels::PackedMatrix> up;
    std::vector<kernels::SegmentedMatrix> out;
    up.reserve(gate_up.size());
    out.reserve(down.size());
    for (const Weight& w : gate_up) up.push_back(load(side, w));
    for (const Weight& w : down) out.push_back(load_whole(side, w));
    constexpr std::int64_t kStride = 320;
    auto* h = allocate<float>(*side.backend, token.size() * kStride);
    auto* y = side.put(random_floats(size(tokens) * kOut, 13));
    const auto count = static_cast<int>(groups.size());
    kernels::GateUpParams gate{side.put(x),   kHidden,   token.data(), weight.data(),
                               groups.data(), up.data(), count,        h,
                               kStride};
    kernels::RowParallelParams down_params{.h = h,
                                           .ldh = kStride,
                                           .token = token.data(),
                                           .groups = groups.data(),
                                           .w = out.data(),
                                           .group_count = count,
                                           .tokens = tokens,
                                           .residual = y,
                                           .y = y,
                                           .ldy = kOut};
    std::vector<kernels::SegmentedMatrix> more;
    if (adapted != nullptr) {
      gate.start = side.put(adapted->start);
      gate.lds = std::int64_t{kernels::panels_of(up[0])} * kernels::kPanel;
      for (const Weight& w : adapted->down) more.push_back(load_whole(side, w));
      down_params.adapter_h = side.put(random_floats(adapted->token.size() * 10, 33));
      down_params.adapter_ldh = 10;
      down_params.adapter_token = adapted->token.data();
      down_params.adapter_groups = adapted->groups.data();
      down_params.adapter_w = more.data();
      down_params.adapter_count = static_cast<int>(more.size());
    }
    side.backend->gate_up(gate);
    side.backend->row_parallel(down_params);
    return side.get(y, size(tokens) * kOut);
  }
};

}  // namespace dsm::device
