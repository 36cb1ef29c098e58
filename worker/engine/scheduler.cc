#include "worker/engine/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/random.h"
#include "worker/engine/invariant.h"
#include "worker/engine/sequence.h"

namespace dsm::engine {
namespace {

Hash128 random_hash_key() {
  const auto word = [] { return std::stoull(random_hex(8), nullptr, 16); };
  return {.lo = word(), .hi = word()};
}

bool served_before(const Sequence* a, const Sequence* b) {
  return before(*a, *b);
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config),
      pool_(config.num_blocks),
      cache_(pool_, random_hash_key(), config_.kv_cache_dtype),
      last_arrival_(TimePoint::min() + 2 * kMaxPriority * kPriorityWorth) {
  const Status valid = validate(config);
  invariant(valid.has_value(), "the scheduler's configuration was validated");
  totals_.speculation.accepted_per_position.resize(
      static_cast<std::size_t>(config.speculation.tokens));
}

Scheduler::~Scheduler() = default;

void Scheduler::submit(SequenceId id, GenerateRequest request, TimePoint arrived) {
  invariant(id > last_id_, "sequence ids grow");
  invariant(admissible(config_, request).has_value(), "a submitted request is admissible");
  invariant(arrived >= last_arrival_, "requests are submitted in the order of arrival");
  last_id_ = id;
  last_arrival_ = arrived;
  auto s = std::make_unique<Sequence>();
  s->id = id;
  s->arrived = arrived;
  s->place = arrived + std::clamp(request.priority, -kMaxPriority, kMaxPriority) * kPriorityWorth;
  s->tokens = std::exchange(request.prompt, {});
  s->prompt_size = s->size();
  s->request = std::move(request);
  const auto& adapter = s->request.adapter;
  s->keys.push_back(cache_.root(s->request.cache_salt, adapter ? adapter->id : kNoAdapter));
  if (const auto deadline = s->request.deadline) deadlines_.emplace(*deadline, id);
  enqueue(*s);
  sequences_.emplace(id, std::move(s));
}

void Scheduler::enqueue(Sequence& s) {
  waiting_.insert(std::ranges::upper_bound(waiting_, &s, served_before), &s);
}

std::optional<Output> Scheduler::cancel(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return std::nullopt;
  auto output = end(*it->second, FinishReason::kCancelled);
  remove_finished();
  return output;
}

std::vector<Output> Scheduler::expire(TimePoint now) {
  std::vector<Output> ended;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const SequenceId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    if (auto output = end(*sequences_.at(id), FinishReason::kDeadline)) {
      ended.push_back(std::move(*output));
    }
  }
  remove_finished();
  return ended;
}

Batch Scheduler::schedule(TimePoint now) {
  invariant(!in_flight_, "one step at a time");
  pool_.advance(now);
  Batch batch;
  batch.id = next_step_++;
  InFlight& step = in_flight_.emplace(InFlight{.id = batch.id, .rows = {}});
  int budget = config_.max_batch_tokens;
  const auto plan = [&](Sequence& s) {
    const int tokens = next_tokens(s, budget);
    step.rows.push_back({.sequence = &s, .tokens = tokens});
    budget -= tokens;
  };

  // Preemption shortens running_ from its end, where no row was planned yet.
  const std::uint64_t preemptions_before = totals_.preemptions;
  for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& s = *running_[i];
    if (!reserve(s, s.computed + next_tokens(s, budget))) {
      break;  // it was itself the last
    }
    plan(s);
  }
  // Who was just preempted waits; there is no room for it in this step, nor for guesses.
  if (totals_.preemptions == preemptions_before) {
    while (budget > 0) {
      Sequence* admitted = admit_next();
      if (admitted == nullptr) break;
      plan(*admitted);
    }
    for (const PlannedRow& row : step.rows) add_drafts(row, budget);
  }
  for (PlannedRow& row : step.rows) {
    Sequence& s = *row.sequence;
    Row made = make_row(s, row.tokens, config_.vocab_size, proposals(s));
    row.choices = made.choices;
    row.has_logits = made.logits > 0;
    s.in_step = true;
    batch.rows.push_back(std::move(made));
  }

  if (batch.rows.empty()) {
    in_flight_.reset();
    invariant(idle(), "a step is empty only when there is no work");
  }
  return batch;
}

// Tokens of the sequence's text that the next step computes.
int Scheduler::next_tokens(const Sequence& s, int budget) const {
  const int tokens = std::min(budget, s.size() - s.computed);
  return s.scores_prompt() ? std::min(tokens, kScoredChunk) : tokens;
}

// Makes the sequence's blocks cover `positions`; preempts from the end until there is room. False
// when the sequence itself had to go.
bool Scheduler::reserve(Sequence& s, int positions) {
  while (static_cast<int>(s.blocks.size()) < blocks_for(positions)) {
    if (auto block = pool_.allocate()) {
      s.blocks.push_back(std::move(*block));
      continue;
    }
    const bool is_last = running_.back() == &s;
    invariant(!is_last || running_.size() > 1, "one sequence alone fits into the cache");
    preempt_last();
    if (is_last) return false;
  }
  return true;
}

void Scheduler::preempt_last() {
  Sequence& s = *running_.back();
  running_.pop_back();
  back_to_queue(s);
  enqueue(s);
  ++totals_.preemptions;
}

// Room for the running ones to grow into, so that a newcomer is not preempted at once.
int Scheduler::reserve_blocks() const {
  return running_.empty() ? 0 : 1 + static_cast<int>(running_.size()) / 16;
}

// Moves the front of the queue to running_ when there is a place and blocks for all of its tokens.
Sequence* Scheduler::admit_next() {
  if (waiting_.empty() || running_.size() >= static_cast<std::size_t>(config_.max_num_seqs)) {
    return nullptr;
  }
  Sequence& s = *waiting_.front();
  std::vector<BlockRef> hits = cached_prefix(s);
  if (is_being_computed(s, hits.size())) return nullptr;
  const int needed = blocks_for(s.size()) - static_cast<int>(hits.size());
  if (pool_.free_count() < needed + reserve_blocks()) return nullptr;

  s.blocks = std::move(hits);
  for (const BlockRef& hit : s.blocks) pool_.count_reuse(hit.id());
  s.offered_blocks = static_cast<int>(s.blocks.size());
  s.computed = s.offered_blocks * kBlockTokens;
  if (!std::exchange(s.admitted_before, true)) {
    s.cached_prompt_tokens = s.computed;
    ++totals_.started;
    totals_.prompt_tokens += static_cast<std::uint64_t>(s.prompt_size);
    if (config_.prefix_caching && !s.wants_prompt_logprobs()) {
      totals_.prefix_query_tokens += static_cast<std::uint64_t>(s.prompt_size);
      totals_.prefix_hit_tokens += static_cast<std::uint64_t>(s.computed);
    }
  }
  waiting_.pop_front();
  running_.insert(std::ranges::upper_bound(running_, &s, served_before), &s);
  // The free blocks were counted, so nobody is preempted for this.
  const bool reserved = reserve(s, s.size());
  invariant(reserved, "free blocks were counted before admission");
  return &s;
}

// The cached blocks with which the sequence's text begins. At least the last token is computed,
// because its logits choose the next one; as a shared block is never written to, the block that
// holds it is not taken from the cache. Who wants the prompt's log probabilities needs its logits.
std::vector<BlockRef> Scheduler::cached_prefix(Sequence& s) {
  std::vector<BlockRef> hits;
  if (!config_.prefix_caching || s.scores_prompt()) return hits;
  for (int block = static_cast<int>(s.keys.size()) - 1; block < s.size() / kBlockTokens; ++block) {
    s.keys.push_back(cache_.child(s.keys.back(), s.block_tokens(block)));
  }
  for (int block = 0; block < (s.size() - 1) / kBlockTokens; ++block) {
    const auto i = static_cast<std::size_t>(block);
    auto hit = cache_.find(s.keys[i + 1], s.keys[i], s.block_tokens(block));
    if (!hit) break;
    hits.push_back(std::move(*hit));
  }
  return hits;
}

// Whether a running sequence is about to compute the given full block of `s`, whose blocks before
// it are cached.
bool Scheduler::is_being_computed(const Sequence& s, std::size_t block) const {
  if (!config_.prefix_caching || s.scores_prompt() ||
      static_cast<int>(block) >= (s.size() - 1) / kBlockTokens) {
    return false;
  }
  return std::ranges::any_of(running_, [&](const Sequence* r) {
    return !r->scores_prompt() && r->keys.size() > block + 1 &&
           r->computed < static_cast<int>(block + 1) * kBlockTokens &&
           r->keys[block + 1] == s.keys[block + 1];
  });
}

// Puts guesses behind the text of a sequence that decodes, as far as budget and free blocks go.
void Scheduler::add_drafts(const PlannedRow& row, int& budget) {
  Sequence& s = *row.sequence;
  s.drafts.clear();
  if (s.generated() == 0 || s.computed + row.tokens != s.size() || row.tokens > 1) return;
  const int room =
      std::min({config_.speculation.tokens, budget, s.request.max_tokens - s.generated() - 1,
                config_.context_limit() - s.size() - 1});
  if (room < 1) return;
  switch (config_.speculation.method) {
    case SpeculationConfig::Method::kNone:
      return;
    case SpeculationConfig::Method::kNgram:
      s.drafts = s.ngrams.propose(s.tokens, room);
      break;
    case SpeculationConfig::Method::kMtp:
      s.drafts.assign(s.proposed.begin(),
                      s.proposed.begin() + std::min<std::ptrdiff_t>(room, std::ssize(s.proposed)));
      break;
  }
  // A stop token is found by the choice before it; what would follow it is never wanted.
  s.drafts.erase(std::ranges::find_if(s.drafts, [&](TokenId t) { return s.ends_with(t); }),
                 s.drafts.end());
  const int wanted = blocks_for(s.size() + static_cast<int>(s.drafts.size()));
  while (static_cast<int>(s.blocks.size()) < wanted && pool_.free_count() > reserve_blocks()) {
    auto block = pool_.allocate();
    if (!block) break;
    s.blocks.push_back(std::move(*block));
  }
  const int slots = static_cast<int>(s.blocks.size()) * kBlockTokens - s.size();
  s.drafts.resize(std::min(s.drafts.size(), static_cast<std::size_t>(slots)));
  budget -= static_cast<int>(s.drafts.size());
}

// Drafts that the model is asked for, to be verified in the step after this one.
int Scheduler::proposals(const Sequence& s) const {
  if (config_.speculation.method != SpeculationConfig::Method::kMtp) return 0;
  return std::max(0, std::min({config_.speculation.tokens, s.request.max_tokens - s.generated() - 2,
                               config_.context_limit() - s.size() - 2}));
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = totals_;
  stats.waiting = static_cast<int>(waiting_.size());
  stats.running = static_cast<int>(running_.size());
  for (const Sequence* s : waiting_) {
    stats.waiting_tokens += s->size();
    stats.oldest_arrival = std::min(stats.oldest_arrival.value_or(s->arrived), s->arrived);
    if (s->request.adapter) stats.waiting_adapters.insert(s->request.adapter->name);
  }
  for (const Sequence* s : running_) {
    if (s->request.adapter) stats.running_adapters.insert(s->request.adapter->name);
  }
  stats.blocks_used = pool_.used_count();
  stats.block_times = pool_.times();
  return stats;
}

void Scheduler::check_invariants() const {
  std::vector<int> refs(static_cast<std::size_t>(pool_.size()), 0);
  invariant(std::ranges::is_sorted(running_, served_before), "running sequences are in order");
  invariant(std::ranges::is_sorted(waiting_, served_before), "the queue is in order");
  for (const Sequence* s : running_) {
    invariant(static_cast<int>(s->blocks.size()) >= blocks_for(s->computed),
              "the block table covers the computed positions");
    invariant(static_cast<int>(s->blocks.size()) <= blocks_for(s->size()),
              "no sequence holds more blocks than its tokens need");
    invariant(s->computed < s->size(), "a running sequence has a token to compute");
    for (std::size_t i = 0; i < s->blocks.size(); ++i) {
      const BlockId id = s->blocks[i].id();
      ++refs[static_cast<std::size_t>(id)];
      invariant(pool_.ref_count(id) == 1 || pool_.is_cached(id),
                "a block is shared only when its contents are cached");
      invariant(static_cast<int>(i) < s->computed / kBlockTokens ||
                    (pool_.ref_count(id) == 1 && !pool_.is_cached(id)),
                "a block that is still written to has one owner and is not cached");
    }
  }
  for (const Sequence* s : waiting_) {
    invariant(s->blocks.empty() && s->computed == 0, "a waiting sequence holds no blocks");
  }
  invariant(sequences_.size() == running_.size() + waiting_.size(), "no sequence is lost");
  int used = 0;
  for (BlockId id = 0; id < pool_.size(); ++id) {
    invariant(pool_.ref_count(id) == refs[static_cast<std::size_t>(id)],
              "each reference to a block is held by a running sequence");
    used += pool_.ref_count(id) > 0 ? 1 : 0;
  }
  invariant(used == pool_.used_count(), "the pool's count of used blocks is right");
}

}  // namespace dsm::engine
