// What may come next in one sequence: the seam between the engine and grammars. The engine asks for
// the mask of each position that it samples, tells which token was taken, and takes draft tokens
// back. Real: worker/grammar; tests: hand-written. One per sequence; called on the engine's thread
// only.
#pragma once

#include <cstdint>
#include <span>

#include "worker/engine/ids.h"

namespace dsm::engine {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Sets bit (t % 32) of word t / 32 for each token t that may come next and clears the others;
  // `mask` has a bit for each of the model's tokens. False: every token may come and the mask was
  // not touched. Stop tokens are allowed exactly where the text may end.
  virtual bool fill_mask(std::span<std::uint32_t> mask) = 0;
  // The token was taken. False, with nothing changed, when it may not come next.
  virtual bool accept(TokenId token) = 0;
  // Takes back the last `tokens` accepted ones.
  virtual void rollback(int tokens) = 0;
};

}  // namespace dsm::engine
