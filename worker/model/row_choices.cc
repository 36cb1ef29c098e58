#include "worker/model/row_choices.h"

#include <cstddef>

#include "worker/model/penalties.h"

namespace dsm::model {

bool chosen_on_device(const engine::Row& row) {
  const engine::ChoiceContext& context = row.context;
  const bool banned = context.banned_choices > 0 && !context.banned.empty();
  return row.choices > 0 && row.choices == row.logits && row.sampling.logprobs < 0 &&
         !has_penalties(row.sampling) && row.sampling.logit_bias.empty() && context.masks.empty() &&
         !banned && context.prompt_next.empty() && !context.check_finite;
}

engine::Sample sample_of(const engine::Row& row, std::span<const engine::TokenId> tokens) {
  return {.sequence = row.sequence, .tokens = engine::verified_tokens(row, [&](std::int32_t i) {
                                      return tokens[static_cast<std::size_t>(i)];
                                    })};
}

}  // namespace dsm::model
