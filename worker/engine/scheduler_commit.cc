// What a step gave, or that it was lost, and how sequences end.
#include <algorithm>
#include <utility>

#include "worker/engine/invariant.h"
#include "worker/engine/scheduler.h"
#include "worker/engine/sequence.h"

namespace dsm::engine {

std::vector<Output> Scheduler::commit(Samples samples) {
  const InFlight step = std::exchange(in_flight_, std::nullopt).value_or(InFlight{});
  invariant(step.id == samples.id, "samples answer the step under way");
  std::vector<Output> outputs;
  std::size_t next_sample = 0;
  for (const PlannedRow& row : step.rows) {
    Sample* sample = nullptr;
    if (row.has_logits) {
      invariant(next_sample < samples.samples.size() &&
                    samples.samples[next_sample].sequence == row.sequence->id,
                "there is one sample for each row with logits, in order");
      sample = &samples.samples[next_sample++];
    }
    if (auto output = take(row, sample)) outputs.push_back(std::move(*output));
  }
  invariant(next_sample == samples.samples.size(), "no sample is left over");
  remove_finished();
  return outputs;
}

// Moves a sequence on by what its row computed. nullopt: it received nothing.
std::optional<Output> Scheduler::take(const PlannedRow& row, Sample* sample) {
  Sequence& s = *row.sequence;
  s.in_step = false;
  s.computed += row.tokens;
  const std::vector<TokenId> drafts = std::exchange(s.drafts, {});
  Output output{.sequence = s.id};
  std::optional<FinishReason> reason = s.ending;
  if (sample != nullptr && !reason) {
    s.scored += static_cast<int>(sample->prompt_logprobs.size());
    std::ranges::move(sample->prompt_logprobs, std::back_inserter(s.prompt_logprobs));
    const std::size_t chosen = sample->tokens.size();
    invariant(row.choices == 0
                  ? chosen == 0
                  : chosen >= 1 && chosen <= static_cast<std::size_t>(row.choices) &&
                        std::equal(drafts.begin(), drafts.begin() + std::ssize(sample->tokens) - 1,
                                   sample->tokens.begin()),
              "what a row received is accepted drafts and one more token");
    if (chosen > 0) count_drafts(drafts.size(), chosen - 1);
    for (std::size_t i = 0; i < chosen && !reason; ++i) {
      reason = append(s, sample->tokens[i], output);
      if (output.tokens.size() > i && i < sample->logprobs.size()) {
        output.logprobs.push_back(std::move(sample->logprobs[i]));
      }
    }
    // The keys and values of accepted drafts are in place; those of others are written over.
    if (chosen > 0) s.computed = std::min(s.computed + static_cast<int>(chosen) - 1, s.size());
    s.proposed = std::move(sample->drafts);
  }
  while (static_cast<int>(s.blocks.size()) > blocks_for(s.size())) s.blocks.pop_back();
  cache_full_blocks(s);
  if (output.tokens.empty() && !reason) return std::nullopt;
  output.prompt_logprobs = std::exchange(s.prompt_logprobs, {});
  output.cached_prompt_tokens = s.cached_prompt_tokens;
  if (reason) output.finished = finish(s, *reason).finished;
  return output;
}

// Adds a chosen token and says whether the sequence ends with it.
std::optional<FinishReason> Scheduler::append(Sequence& s, TokenId token, Output& output) {
  const GenerateRequest& r = s.request;
  if (s.ends_with(token)) return FinishReason::kStop;
  if (r.constraint && !r.constraint->accept(token)) {
    output.error = Error{.kind = ErrorKind::kInternal,
                         .message = "the answer cannot go on as its grammar demands"};
    return FinishReason::kError;
  }
  s.tokens.push_back(token);
  s.losses = 0;  // new ground; recomputing what it had before is not
  output.tokens.push_back(token);
  ++totals_.generation_tokens;
  if (s.generated() >= r.max_tokens || s.size() >= config_.context_limit()) {
    return FinishReason::kLength;
  }
  return std::nullopt;
}

void Scheduler::count_drafts(std::size_t drafts, std::size_t accepted) {
  if (drafts == 0) return;
  SpeculationStats& stats = totals_.speculation;
  ++stats.drafts;
  stats.draft_tokens += drafts;
  stats.accepted_tokens += accepted;
  for (std::size_t i = 0; i < accepted; ++i) ++stats.accepted_per_position[i];
}

void Scheduler::cache_full_blocks(Sequence& s) {
  if (!config_.prefix_caching) return;
  PrefixCache& prefixes = cache_of(s).prefixes;
  for (; s.offered_blocks < s.computed / kBlockTokens; ++s.offered_blocks) {
    const auto i = static_cast<std::size_t>(s.offered_blocks);
    if (s.keys.size() == i + 1) {
      s.keys.push_back(prefixes.child(s.keys[i], s.block_tokens(s.offered_blocks)));
    }
    prefixes.insert(s.keys[i + 1], s.keys[i], s.block_tokens(s.offered_blocks), s.blocks[i]);
  }
}

void Scheduler::back_to_queue(Sequence& s) {
  invariant(!s.in_step, "a sequence in the step under way keeps its blocks");
  // From the end: the start of a text is what others are most likely to share, it is evicted last.
  while (!s.blocks.empty()) {
    cache_of(s).pool.touch(s.blocks.back().id());
    s.blocks.pop_back();
  }
  if (s.cache >= 0) --cache_of(s).running;
  s.cache = -1;
  s.computed = 0;
  s.offered_blocks = 0;
  s.drafts.clear();
  s.proposed.clear();
}

// Ends a sequence from outside: at once (then its last output is returned) or with its step.
std::optional<Output> Scheduler::end(Sequence& s, FinishReason reason) {
  if (!s.in_step) return finish(s, reason);
  if (!s.ending) s.ending = reason;
  return std::nullopt;
}

Output Scheduler::finish(Sequence& s, FinishReason reason) {
  s.finished = true;
  s.in_step = false;
  finished_.push_back(s.id);
  if (s.request.deadline) deadlines_.erase({*s.request.deadline, s.id});
  back_to_queue(s);
  return {.sequence = s.id, .finished = reason, .cached_prompt_tokens = s.cached_prompt_tokens};
}

void Scheduler::remove_finished() {
  if (finished_.empty()) return;
  const auto gone = [](const Sequence* s) { return s->finished; };
  std::erase_if(running_, gone);
  std::erase_if(waiting_, gone);
  for (const SequenceId id : finished_) sequences_.erase(id);
  finished_.clear();
}

std::vector<Output> Scheduler::requeue_all() {
  std::vector<Output> ended;
  if (in_flight_) {
    for (const PlannedRow& row : in_flight_->rows) {
      row.sequence->in_step = false;
      ++row.sequence->losses;
    }
    in_flight_.reset();
  }
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence& s = **it;
    if (s.ending) {
      ended.push_back(finish(s, *s.ending));
    } else if (s.losses >= kMaxLosses) {
      ended.push_back(finish(s, FinishReason::kError));
    } else {
      back_to_queue(s);
      enqueue(s);
    }
  }
  running_.clear();
  remove_finished();
  for (KvCache& cache : caches_) cache.prefixes.clear();
  return ended;
}

std::vector<Output> Scheduler::fail_step() {
  std::vector<Output> ended;
  if (in_flight_) {
    for (const PlannedRow& row : in_flight_->rows) {
      Sequence& s = *row.sequence;
      ended.push_back(finish(s, s.ending.value_or(FinishReason::kError)));
    }
    in_flight_.reset();
    remove_finished();
  }
  std::ranges::move(requeue_all(), std::back_inserter(ended));
  return ended;
}

}  // namespace dsm::engine
