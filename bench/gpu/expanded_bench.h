// Keys and values of heads that the loose mode makes of the cache's latents for attention of a
// prompt.
#pragma once

#include "bench/gpu/setting.h"

namespace dsm::bench {

class ExpandedBench {
 public:
  explicit ExpandedBench(Setting& on);

  // Of one sequence, from its first token on. Nothing where attention is not latent.
  void run(int tokens);

 private:
  // So many positions at a time.
  void expand(const std::string& name, int past, int at_once);

  Setting& on_;
  int heads_ = 0;
  kernels::KvLayer cache_;
  kernels::KvLayer kv_;  // of the heads
  kernels::PackedMatrix w_;
  float* latents_ = nullptr;
  float* rotated_ = nullptr;
  float* expanded_ = nullptr;
};

}  // namespace dsm::bench
