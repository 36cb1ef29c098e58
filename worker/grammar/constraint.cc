#include "worker/grammar/constraint.h"

#include <algorithm>

namespace dsm::grammar {

bool Constraint::fill_mask(std::span<std::uint32_t> mask) {
  if (!open_) return false;
  // When the matcher has failed no bit is set: nothing may come, which the engine sees.
  static_cast<void>(dsm_grammar_fill_mask(matcher_.get(), mask.data(), mask.size()));
  return true;
}

bool Constraint::accept(engine::TokenId token) {
  if (!open_) {
    ++free_;
    open_ = token == after_;
    return true;
  }
  if (token < 0 || !dsm_grammar_accept(matcher_.get(), static_cast<std::uint32_t>(token))) {
    return false;
  }
  ++taken_;
  return true;
}

void Constraint::rollback(int tokens) {
  const int behind = std::min(tokens, taken_);
  if (behind > 0) {
    // A matcher that cannot go back has failed, and its next mask is empty.
    static_cast<void>(dsm_grammar_rollback(matcher_.get(), static_cast<std::size_t>(behind)));
    taken_ -= behind;
  }
  if (tokens > behind) {
    // The last token before the grammar is the gate's.
    free_ -= tokens - behind;
    open_ = false;
  }
}

}  // namespace dsm::grammar
