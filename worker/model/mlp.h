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
  // A router's choice and the groups made of it.
  struct Routing {
    std::int32_t* chosen = nullptr;  // [T, top_k]
    float* weights = nullptr;        // [T, top_k]
    kernels::GroupExpertsParams groups;
  };
  Routing make_routing(const Step& step, bool for_host) const;
  const Routing& route(Step& step, const LayerWeights& w, bool on_device);
  // What gate_up gives to down, of one layer at a time.
  struct Hidden {
    float* rows = nullptr;  // [slots, stride], the tokens of a dense layer or slots of experts
    std::int64_t stride = 0;
    kernels::Fp8Rows fp8 = {};
  };
  // Rounds the hidden parts to FP8 and multiplies them by the router's weights. `routing`: null
  // where there are no experts. `after`: what alone reads them.
  void round_hidden(Step& step, const LayerWeights& w, const Hidden& hidden,
                    const kernels::GroupExpertsParams* routing, const NextProducts& after);

  // The same memory for both: a dense layer's rows are wide, those of experts are many.
  Hidden of_dense_;
  Hidden of_experts_;
  kernels::Group everyone_;
  // Where there are experts.
  Share experts_;                   // this rank's
  float* router_logits_ = nullptr;  // [T, experts rounded up to 16]
  Routing on_device_;               // data
  Routing on_host_;                 // results and lists; where rows may have adapters
  float* ones_ = nullptr;           // [T * (1 + top_k)]; where the step `quantises`
};

}  // namespace dsm::model
