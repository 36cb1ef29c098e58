// What one step of the model computes: the value that the scheduler hands to the Runner, and that
// the leader sends to the other ranks. No pointers, no device: it can be serialised and compared.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/ids.h"
#include "worker/engine/logprobs.h"
#include "worker/engine/sampling_params.h"

namespace dsm::engine {

// Tokens per KV block. A block holds this many consecutive positions of one sequence, in every
// layer.
inline constexpr int kBlockTokens = 64;

// What rank 0 needs besides the logits to choose a row's tokens. Each part is empty when it changes
// nothing.
struct ChoiceContext {
  // The text before the first token that is chosen, without drafts, when a penalty looks at it:
  // prompt, then generated tokens from `generated_from` on.
  std::vector<TokenId> history;
  std::int32_t generated_from = 0;
  // One mask after the other, for each token that is chosen: bit t % 32 of word t / 32 is set when
  // token t may come.
  std::vector<std::uint32_t> masks;
  // Not chosen at the first `banned_choices` positions, unless the mask leaves nothing else.
  std::vector<TokenId> banned;
  std::int32_t banned_choices = 0;
  // The tokens that stand after the row's first logits - choices positions with logits: how likely
  // they were is asked for, with the `prompt_logprobs` likeliest beside them.
  std::vector<TokenId> prompt_next;
  std::int32_t prompt_logprobs = 0;
  bool check_finite = false;  // whether all logits are finite numbers is asked for

  bool operator==(const ChoiceContext&) const = default;
};

// One sequence's work in a step: tokens[i] stands at position start + i. Its keys and values are
// written to slot (block_table[p / kBlockTokens], p % kBlockTokens) for position p before attention
// reads positions 0..p.
//
// A row that reaches the end of its sequence's text chooses the next token. The text may be
// followed by drafts, guesses at what comes next: then a token is chosen after the text and after
// each draft, and those up to the first that differs from its draft are what the sequence receives.
struct Row {
  SequenceId sequence = 0;
  std::int32_t start = 0;            // tokens of this sequence already in the KV cache
  std::vector<TokenId> tokens;       // at least one; the last choices - 1 are drafts
  std::vector<BlockId> block_table;  // covers positions 0 .. start + tokens.size() - 1
  std::int32_t logits = 0;           // so many last tokens' logits are wanted; at least `choices`
  std::int32_t choices = 0;          // after so many last tokens a token is chosen
  std::int32_t propose = 0;          // drafts that the model itself is asked for, when it can
  std::int32_t rank = 0;             // whose KV cache its blocks are in, where each rank has one
  AdapterId adapter = kNoAdapter;    // whose weights are added to the model's

  // For rank 0 alone, which is in the leader's process: not sent to the other ranks.
  TokenId next = -1;  // what stands after the tokens in the middle of a prompt; -1: not known yet
  SamplingParams sampling;
  ChoiceContext context;

  // Where the first chosen token will stand.
  std::int32_t first_choice() const {
    return start + static_cast<std::int32_t>(tokens.size()) - choices + 1;
  }
  std::span<const TokenId> drafts() const {
    return choices < 2 ? std::span<const TokenId>()
                       : std::span(tokens).last(static_cast<std::size_t>(choices - 1));
  }

  bool operator==(const Row&) const;
};

struct Batch {
  StepId id = 0;
  std::vector<Row> rows;  // ranks rise

  std::size_t token_count() const;
  bool operator==(const Batch&) const;
};

// What a row with logits gave.
struct Sample {
  SequenceId sequence = 0;
  // 1 .. choices tokens: the drafts that were chosen again, then the first one that was not a
  // draft. Empty when the row chooses nothing.
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs = {};  // of `tokens`, when sampling.logprobs asks for them
  std::vector<PositionLogprobs> prompt_logprobs = {};  // of context.prompt_next
  std::vector<TokenId> drafts = {};  // what the model expects after `tokens`; at most row.propose
  bool all_finite = true;            // false: context.check_finite found a logit that is not
};

struct Samples {
  StepId id = 0;
  // In the order of the batch's rows, rows without logits left out.
  std::vector<Sample> samples;
};

// The tokens that a row receives when `choose(i)` is what is chosen at its i-th position that
// chooses. Stops at the first token that is not its draft: what follows was computed after another
// text.
template <typename Choose>
std::vector<TokenId> verified_tokens(const Row& row, Choose&& choose) {
  const std::span<const TokenId> drafts = row.drafts();
  std::vector<TokenId> tokens;
  for (std::int32_t i = 0; i < row.choices; ++i) {
    tokens.push_back(choose(i));
    const auto at = static_cast<std::size_t>(i);
    if (at < drafts.size() && tokens.back() != drafts[at]) break;
  }
  return tokens;
}

}  // namespace dsm::engine
