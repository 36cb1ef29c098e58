// Choosing a token from logits. The same logits, parameters and position give the same token on
// every machine and in every batch: the random numbers are a function of (seed, position, token
// id).
#pragma once

#include <cstdint>
#include <span>

#include "worker/engine/batch.h"
#include "worker/engine/sampling_params.h"

namespace dsm::model {

// `position` is where the token will stand. `allowed`: bit t % 32 of word t / 32 is set when token
// t may be taken; empty: all may. Temperature 0 takes the highest logit, the lowest id on a tie.
// Otherwise top_k, then min_p, then top_p narrow the choice (each by probabilities at this
// temperature; ties go to the lowest id; at least one token stays), and the token with the highest
// logit / temperature + Gumbel noise is taken: a draw from the softmax. A logit that is not a
// number is never taken while another is one, and a token that is not allowed only when none is.
// Penalties and bias are in the logits already (row_sampler.h).
engine::TokenId sample(std::span<const float> logits, const engine::SamplingParams& params,
                       std::int64_t position, std::span<const std::uint32_t> allowed = {});

}  // namespace dsm::model
