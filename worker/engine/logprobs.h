// How likely the model held the tokens at one position. Natural logarithms of its own distribution,
// before temperature, penalties, bias and masks; never below kLeastLogprob, so that they are
// numbers everywhere.
#pragma once

#include <vector>

#include "worker/engine/ids.h"

namespace dsm::engine {

// Stands for "impossible".
inline constexpr float kLeastLogprob = -9999.0F;

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

// The token that stands at a position, and the likeliest ones there.
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // likeliest first, lowest id first on a tie
  bool operator==(const PositionLogprobs&) const = default;
};

}  // namespace dsm::engine
