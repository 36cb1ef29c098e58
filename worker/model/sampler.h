// Choosing a token from logits. The same logits, parameters and position give the same token on
// every machine, on every device and in every batch: the random numbers are a function of (seed,
// position, token id).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/choose.h"
#include "worker/engine/batch.h"
#include "worker/engine/sampling_params.h"

namespace dsm::model {

// What the parameters say of a choice; `position` is where the token will stand.
kernels::Choice choice_of(const engine::SamplingParams& params, std::int64_t position);

// As kernels::choose_token(). Penalties and bias are in the logits already (row_sampler.h).
engine::TokenId sample(std::span<const float> logits, const engine::SamplingParams& params,
                       std::int64_t position, std::span<const std::uint32_t> allowed = {});

}  // namespace dsm::model
