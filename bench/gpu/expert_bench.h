// A layer's mixture of experts: its router, and experts over even choices, with groups that the
// host makes and that the device makes.
#pragma once

#include <vector>

#include "bench/gpu/setting.h"

namespace dsm::bench {

class ExpertBench {
 public:
  explicit ExpertBench(Setting& on);

  // Nothing of a model without experts.
  void run(int rows);

 private:
  void mixture(int rows);
  void routed_mixture(int rows);
  void router(int rows);
  // Choice i of token t.
  int choice(int t, int i) const {
    return (t * on_.config.experts_per_token + i) % on_.config.num_experts;
  }

  Setting& on_;
  kernels::PackedMatrix router_;
  std::vector<kernels::PackedMatrix> experts_up_;  // the first one: those that are shared
  std::vector<kernels::SegmentedMatrix> experts_down_;
};

}  // namespace dsm::bench
