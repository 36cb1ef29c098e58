#include "worker/model/sampler.h"

#include "kernels/draw.h"

namespace dsm::model {

kernels::Choice choice_of(const engine::SamplingParams& params, std::int64_t position) {
  return {.key = kernels::noise_key(params.seed, position),
          .temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .wanted = true};
}

engine::TokenId sample(std::span<const float> logits, const engine::SamplingParams& params,
                       std::int64_t position, std::span<const std::uint32_t> allowed) {
  return kernels::choose_token(logits, choice_of(params, position), allowed);
}

}  // namespace dsm::model
