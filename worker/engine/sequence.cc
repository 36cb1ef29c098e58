#include "worker/engine/sequence.h"

#include <algorithm>

namespace dsm::engine {
namespace {

bool has_penalties(const SamplingParams& p) {
  return p.presence_penalty != 0 || p.frequency_penalty != 0 || p.repetition_penalty != 1;
}

// The masks of the next token and of the one after each draft; empty when none of them forbids
// anything. Cuts the drafts before the first that may not come.
std::vector<std::uint32_t> constraint_masks(TokenConstraint& constraint,
                                            std::vector<TokenId>& drafts, int vocab_size) {
  const auto words = static_cast<std::size_t>((vocab_size + 31) / 32);
  // A position that is not constrained is left as it is: everything may come.
  std::vector<std::uint32_t> masks((drafts.size() + 1) * words, ~std::uint32_t{0});
  bool any = false;
  std::size_t accepted = 0;
  for (;;) {
    any |= constraint.fill_mask(std::span(masks).subspan(accepted * words, words));
    if (accepted == drafts.size() || !constraint.accept(drafts[accepted])) break;
    ++accepted;
  }
  if (accepted > 0) constraint.rollback(static_cast<int>(accepted));
  drafts.resize(accepted);
  masks.resize(any ? (accepted + 1) * words : 0);
  return masks;
}

ChoiceContext choice_context(const Sequence& s, int choices) {
  const GenerateRequest& r = s.request;
  ChoiceContext context;
  if (has_penalties(r.sampling)) {
    // Only repetition looks at the prompt.
    const bool whole = r.sampling.repetition_penalty != 1;
    context.history.assign(s.tokens.begin() + (whole ? 0 : s.prompt_size), s.tokens.end());
    context.generated_from = whole ? s.prompt_size : 0;
  }
  if (s.generated() < r.min_tokens && !r.stop_tokens.empty()) {
    context.banned = r.stop_tokens;
    context.banned_choices = std::min(choices, r.min_tokens - s.generated());
  }
  return context;
}

}  // namespace

bool Sequence::ends_with(TokenId token) const {
  return !request.ignore_eos &&
         std::ranges::find(request.stop_tokens, token) != request.stop_tokens.end();
}

Row make_row(Sequence& s, int tokens, int vocab_size, int propose) {
  const int end = s.computed + tokens;
  const bool chooses = end == s.size();
  Row row;
  row.sequence = s.id;
  row.start = s.computed;
  row.rank = s.cache;
  if (s.request.adapter) row.adapter = s.request.adapter->id;
  row.sampling = s.request.sampling;
  std::vector<std::uint32_t> masks;
  if (chooses && s.request.constraint) {
    masks = constraint_masks(*s.request.constraint, s.drafts, vocab_size);
  }
  if (chooses) {
    row.choices = 1 + static_cast<int>(s.drafts.size());
    row.propose = propose;
    row.context = choice_context(s, row.choices);
    row.context.masks = std::move(masks);
  } else {
    row.next = s.tokens[static_cast<std::size_t>(end)];
  }
  row.tokens.reserve(static_cast<std::size_t>(tokens) + s.drafts.size());
  row.tokens.assign(s.tokens.begin() + s.computed, s.tokens.begin() + end);
  row.tokens.insert(row.tokens.end(), s.drafts.begin(), s.drafts.end());
  const auto covered =
      static_cast<std::size_t>(blocks_for(end + static_cast<int>(s.drafts.size())));
  row.block_table.reserve(covered);
  for (std::size_t i = 0; i < covered; ++i) row.block_table.push_back(s.blocks[i].id());
  if (s.scores_prompt()) {
    // The logits at position p say how likely the token at p + 1 is.
    for (int p = std::max(s.computed, s.scored - 1); p < std::min(end, s.prompt_size - 1); ++p) {
      row.context.prompt_next.push_back(s.tokens[static_cast<std::size_t>(p) + 1]);
    }
    row.context.prompt_logprobs = s.request.prompt_logprobs;
  }
  row.logits = row.choices + static_cast<int>(row.context.prompt_next.size());
  return row;
}

}  // namespace dsm::engine
