// Rows whose tokens are chosen where their logits are, on the device: those whose logits are wanted
// for nothing else. Penalties, bias, masks, banned tokens, log probabilities and a look at whether
// logits are finite are the host's (row_sampler.h).
#pragma once

#include <span>

#include "worker/engine/batch.h"

namespace dsm::model {

bool chosen_on_device(const engine::Row& row);

// Of such a row, with one token for each of its choices.
engine::Sample sample_of(const engine::Row& row, std::span<const engine::TokenId> tokens);

}  // namespace dsm::model
