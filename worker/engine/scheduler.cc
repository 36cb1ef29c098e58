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
    : config_(config), last_arrival_(TimePoint::min() + 2 * kMaxPriority * kPriorityWorth) {
  const Status valid = validate(config);
  invariant(valid.has_value(), "the scheduler's configuration was validated");
  const Hash128 hash_key = random_hash_key();
  for (int i = 0; i < config.kv_caches; ++i) {
    caches_.emplace_back(config.num_blocks, hash_key, config.kv_cache_dtype);
  }
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
  s->keys.push_back(
      caches_.front().prefixes.root(s->request.cache_salt, adapter ? adapter->id : kNoAdapter));
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
  for (KvCache& cache : caches_) cache.pool.advance(now);
  Batch batch;
  batch.id = next_step_++;
  InFlight& step = in_flight_.emplace(InFlight{.id = batch.id, .rows = {}});
  int budget = config_.max_batch_tokens;
  const auto plan = [&](Sequence& s) {
    const int tokens = next_tokens(s, budget);
    step.rows.push_back({.sequence = &s, .tokens = tokens});
    budget -= tokens;
  };

  // Preemption takes those out of running_ that come after all for which a row was planned.
  const std::uint64_t preemptions_before = totals_.preemptions;
  for (std::size_t i = 0; i < running_.size() && budget > 0;) {
    Sequence& s = *running_[i];
    // Who was itself the last has gone, and the next one, of another cache, stands in its place.
    if (!reserve(s, s.computed + next_tokens(s, budget))) continue;
    plan(s);
    ++i;
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
  std::ranges::stable_sort(step.rows, {},
                           [](const PlannedRow& row) { return row.sequence->cache; });
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

KvCache& Scheduler::cache_of(const Sequence& s) {
  return caches_[static_cast<std::size_t>(s.cache)];
}

// Makes the sequence's blocks cover `positions`; preempts from the end until there is room. False
// when the sequence itself had to go.
bool Scheduler::reserve(Sequence& s, int positions) {
  while (static_cast<int>(s.blocks.size()) < blocks_for(positions)) {
    if (auto block = cache_of(s).pool.allocate()) {
      s.blocks.push_back(std::move(*block));
    } else if (&preempt_last(s.cache) == &s) {
      return false;
    }
  }
  return true;
}

Sequence& Scheduler::preempt_last(int cache) {
  invariant(caches_[static_cast<std::size_t>(cache)].running > 1,
            "one sequence alone fits into a cache");
  const auto last = std::find_if(running_.rbegin(), running_.rend(),
                                 [cache](const Sequence* s) { return s->cache == cache; });
  Sequence& s = **last;
  running_.erase(std::next(last).base());
  back_to_queue(s);
  enqueue(s);
  ++totals_.preemptions;
  return s;
}

// Moves the front of the queue to running_ when there is a place and, in one of the caches, blocks
// for all of its tokens.
Sequence* Scheduler::admit_next() {
  if (waiting_.empty() || running_.size() >= static_cast<std::size_t>(config_.max_num_seqs)) {
    return nullptr;
  }
  Sequence& s = *waiting_.front();
  add_keys(s);
  std::vector<std::vector<BlockId>> found;
  std::vector<CacheOffer> offers;
  for (const KvCache& cache : caches_) {
    found.push_back(cached_prefix(s, cache));
    offers.push_back(offer(s, static_cast<int>(offers.size()), found.back()));
  }
  const auto chosen = choose_cache(offers, blocks_for(s.size()));
  if (!chosen || offers[static_cast<std::size_t>(*chosen)].coming > 0) return nullptr;
  admit(s, *chosen, found[static_cast<std::size_t>(*chosen)]);
  return &s;
}

void Scheduler::admit(Sequence& s, int cache, const std::vector<BlockId>& found) {
  s.cache = cache;
  KvCache& own = cache_of(s);
  ++own.running;
  for (const BlockId id : found) {
    s.blocks.push_back(own.pool.share(id));
    own.pool.count_reuse(id);
  }
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
}

// Who wants the prompt's log probabilities needs its logits, and reads no cache.
void Scheduler::add_keys(Sequence& s) const {
  if (!config_.prefix_caching || s.scores_prompt()) return;
  for (int block = static_cast<int>(s.keys.size()) - 1; block < s.size() / kBlockTokens; ++block) {
    s.keys.push_back(caches_.front().prefixes.child(s.keys.back(), s.block_tokens(block)));
  }
}

// The blocks of the cache with which the sequence's text begins. At least the last token is
// computed, because its logits choose the next one; as a shared block is never written to, the
// block that holds it is not taken from the cache.
std::vector<BlockId> Scheduler::cached_prefix(const Sequence& s, const KvCache& cache) const {
  std::vector<BlockId> found;
  if (!config_.prefix_caching || s.scores_prompt()) return found;
  for (int block = 0; block < (s.size() - 1) / kBlockTokens; ++block) {
    const auto i = static_cast<std::size_t>(block);
    const auto hit = cache.prefixes.look_up(s.keys[i + 1], s.keys[i], s.block_tokens(block));
    if (!hit) break;
    found.push_back(*hit);
  }
  return found;
}

CacheOffer Scheduler::offer(const Sequence& s, int cache, const std::vector<BlockId>& found) const {
  const KvCache& at = caches_[static_cast<std::size_t>(cache)];
  const auto unheld =
      std::ranges::count_if(found, [&](BlockId id) { return at.pool.ref_count(id) == 0; });
  const int size = static_cast<int>(found.size());
  return {.free = at.pool.free_count() - static_cast<int>(unheld),
          .reserve = at.reserve(),
          .found = size,
          .coming = being_computed(s, cache, size),
          .kept = static_cast<int>(at.prefixes.size())};
}

// Full blocks of `s`, after the first `found`, that a running sequence of the cache is about to
// compute.
int Scheduler::being_computed(const Sequence& s, int cache, int found) const {
  if (!config_.prefix_caching || s.scores_prompt()) return 0;
  const int full = (s.size() - 1) / kBlockTokens;
  int most = 0;
  for (const Sequence* r : running_) {
    if (r->cache != cache || r->scores_prompt() || r->computed >= (found + 1) * kBlockTokens) {
      continue;
    }
    const int known = std::min(full, static_cast<int>(r->keys.size()) - 1);
    int same = found;
    while (same < known && r->keys[static_cast<std::size_t>(same) + 1] ==
                               s.keys[static_cast<std::size_t>(same) + 1]) {
      ++same;
    }
    most = std::max(most, same - found);
  }
  return most;
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
  KvCache& cache = cache_of(s);
  while (static_cast<int>(s.blocks.size()) < wanted && cache.pool.free_count() > cache.reserve()) {
    auto block = cache.pool.allocate();
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
    // Shared blocks are full.
    stats.slots_empty +=
        std::max<std::int64_t>(0, std::ssize(s->blocks) * kBlockTokens - std::ssize(s->tokens));
  }
  for (const KvCache& cache : caches_) {
    stats.blocks_used += cache.pool.used_count();
    stats.block_times.add(cache.pool.times());
  }
  return stats;
}

void Scheduler::check_invariants() const {
  invariant(std::ranges::is_sorted(running_, served_before), "running sequences are in order");
  invariant(std::ranges::is_sorted(waiting_, served_before), "the queue is in order");
  for (const Sequence* s : waiting_) {
    invariant(s->blocks.empty() && s->computed == 0 && s->cache < 0,
              "a waiting sequence holds no blocks");
  }
  invariant(sequences_.size() == running_.size() + waiting_.size(), "no sequence is lost");
  for (int i = 0; i < config_.kv_caches; ++i) check_cache(i);
}

void Scheduler::check_cache(int index) const {
  const KvCache& cache = caches_[static_cast<std::size_t>(index)];
  const BlockPool& pool = cache.pool;
  std::vector<int> refs(static_cast<std::size_t>(pool.size()), 0);
  int running = 0;
  for (const Sequence* s : running_) {
    if (s->cache != index) continue;
    ++running;
    invariant(static_cast<int>(s->blocks.size()) >= blocks_for(s->computed),
              "the block table covers the computed positions");
    invariant(static_cast<int>(s->blocks.size()) <= blocks_for(s->size()),
              "no sequence holds more blocks than its tokens need");
    invariant(s->computed < s->size(), "a running sequence has a token to compute");
    for (std::size_t i = 0; i < s->blocks.size(); ++i) {
      const BlockId id = s->blocks[i].id();
      ++refs[static_cast<std::size_t>(id)];
      invariant(pool.ref_count(id) == 1 || pool.is_cached(id),
                "a block is shared only when its contents are cached");
      invariant(static_cast<int>(i) < s->computed / kBlockTokens ||
                    (pool.ref_count(id) == 1 && !pool.is_cached(id)),
                "a block that is still written to has one owner and is not cached");
    }
  }
  invariant(running == cache.running, "the cache's count of running sequences is right");
  int used = 0;
  for (BlockId id = 0; id < pool.size(); ++id) {
    invariant(pool.ref_count(id) == refs[static_cast<std::size_t>(id)],
              "each reference to a block is held by a running sequence");
    used += pool.ref_count(id) > 0 ? 1 : 0;
  }
  invariant(used == pool.used_count(), "the pool's count of used blocks is right");
}

}  // namespace dsm::engine
