// The probe: a fixed question that the ranks answer at the start of every epoch, before anything of
// users is computed. It shows that the ranks which have met hold the right weights and compute with
// them. Its steps are those of a request (the prompt in chunks, then token by token, greedily), but
// the scheduler knows nothing of them: they use KV block 0, which nobody holds when an epoch
// starts, so no block is taken, no prefix is cached and nothing is counted. Where each rank has a
// KV cache of its own it is asked once for each, since every rank attends for itself.
//
// An answer is right when all logits are finite, its tokens are those that the checkpoint says, and
// it is the one of this process's first epoch: where nothing may change a bit, to the last bit of
// the log probabilities. Plain values; the engine runs it.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"

namespace dsm::engine {

struct Probe {
  std::vector<TokenId> prompt;  // at least one; with the answer at most kMaxTokens
  int answer_tokens = 1;
  std::vector<TokenId> expected = {};  // the answer, `answer_tokens` long; empty: it is not known
  // The answer is the same to the last bit whenever it is computed. Otherwise another token is as
  // good where the model holds it for about as likely as the wanted one.
  bool exact = true;

  static constexpr int kMaxTokens = kBlockTokens;
};

// For a checkpoint that says none: tokens from all over the vocabulary, no longer than a sequence
// may be.
Probe default_probe(int vocab_size, int context_limit);

// One asking of a probe:  while (auto batch = run.next()) run.take(<what the ranks gave>).
class ProbeRun {
 public:
  // Sequences have higher ids.
  static constexpr SequenceId kSequence = 0;
  // A token is as good as the wanted one when that is at most this much less likely, as a natural
  // logarithm. Rounding moves it far less; weights that are wrong move it further.
  static constexpr float kTie = 1.0F;

  // `probe` outlives the run. `rank`: as Row's.
  ProbeRun(const Probe& probe, int max_batch_tokens, int rank = 0);

  // The next step; nullopt: the answer is whole.
  std::optional<Batch> next() const;
  // What rank 0 gave to it. kInternal: it is no answer, or a logit is not finite.
  Status take(const Samples& samples);

  // Position by position, with the likeliest tokens at each.
  const std::vector<PositionLogprobs>& answer() const { return answer_; }
  // kInternal, with the first token that differs, when the answer's tokens are not the
  // checkpoint's.
  Status compare_expected() const;
  // The same for an earlier answer of this process; empty: there was none.
  Status compare_first(const std::vector<PositionLogprobs>& first) const;

 private:
  int chunk() const;  // tokens of the next step
  Status compare_tokens(std::span<const TokenId> wanted, std::string_view by) const;

  const Probe& probe_;
  int max_batch_tokens_;
  int rank_;
  int computed_ = 0;                      // positions in the KV block
  std::vector<PositionLogprobs> answer_;  // so far
};

}  // namespace dsm::engine
