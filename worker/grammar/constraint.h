// One sequence's constraint: a matcher of llguidance behind a gate. Until the gate's token was
// taken everything is allowed and the matcher sees nothing.
//
// Threading: one thread at a time, as engine::TokenConstraint says. Invariant: taken_ tokens were
// accepted behind the gate, free_ before it (its own token included).
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "worker/engine/token_constraint.h"
#include "worker/grammar/llguidance_abi.h"

namespace dsm::grammar {

struct MatcherDeleter {
  void operator()(DsmGrammarMatcher* matcher) const { dsm_grammar_free(matcher); }
};
using MatcherPtr = std::unique_ptr<DsmGrammarMatcher, MatcherDeleter>;

class Constraint : public engine::TokenConstraint {
 public:
  Constraint(MatcherPtr matcher, std::optional<engine::TokenId> after)
      : matcher_(std::move(matcher)), after_(after), open_(!after) {}

  bool fill_mask(std::span<std::uint32_t> mask) override;
  bool accept(engine::TokenId token) override;
  void rollback(int tokens) override;

 private:
  MatcherPtr matcher_;
  std::optional<engine::TokenId> after_;
  bool open_;  // the grammar has begun
  int free_ = 0;
  int taken_ = 0;
};

}  // namespace dsm::grammar
