// The MLP of a layer: dense, or a mixture of experts of which one, the shared expert, takes every
// token. A rank computes its part of each expert, or some experts as a whole; what it lacks the sum
// over the ranks brings.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

class Mlp {
 public:
  explicit Mlp(Step& step);
  // x += mlp(norm(x)). Collective.
  void run(Step& step, int layer, const LayerWeights& w);

 private:
  void route(Step& step, const LayerWeights& w);
  void group_by_expert(Step& step);

  float* router_logits_;   // [T, experts rounded up to 16]
  std::int32_t* chosen_;   // [T, top_k]
  float* chosen_weights_;  // [T, top_k]
  float* hidden_;          // [T * (1 + top_k), widest MLP part]
  std::int64_t hidden_stride_;
  kernels::Fp8Rows hidden_fp8_;
  Share experts_;                       // this rank's
  std::vector<kernels::Group> groups_;  // all tokens, then the slots of each expert of this rank
};

}  // namespace dsm::model
