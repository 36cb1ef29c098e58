#include "worker/engine/scheduler.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "base/random.h"
#include "worker/engine/invariant.h"

namespace dsm::engine {
namespace {

int blocks_for(int positions) {
  return (positions + kBlockTokens - 1) / kBlockTokens;
}

Hash128 random_hash_key() {
  const auto word = [] { return std::stoull(random_hex(8), nullptr, 16); };
  return {.lo = word(), .hi = word()};
}

}  // namespace

struct Scheduler::Sequence {
  SequenceId id = 0;
  GenerateRequest request;      // its prompt is moved into `tokens`
  std::vector<TokenId> tokens;  // prompt, then generated ones
  int prompt_size = 0;
  int computed = 0;  // tokens whose keys and values are in `blocks`
  std::vector<BlockRef> blocks;
  std::vector<Hash128> keys;  // keys[0] = the salt's root, keys[i + 1] = key of block i
  int offered_blocks = 0;     // full blocks that the cache has been told of
  int cached_prompt_tokens = 0;
  int losses = 0;
  bool admitted_before = false;
  bool in_step = false;
  bool cancelled = false;
  bool finished = false;

  int size() const { return static_cast<int>(tokens.size()); }
  int generated() const { return size() - prompt_size; }
  std::span<const TokenId> block_tokens(int block) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(block) * kBlockTokens, kBlockTokens);
  }
};

int SchedulerConfig::context_limit() const {
  // The last token of a sequence is handed out and never computed, so it needs no slot.
  const std::int64_t slots = static_cast<std::int64_t>(num_blocks) * kBlockTokens + 1;
  return static_cast<int>(std::min<std::int64_t>(max_model_len, slots));
}

Status validate(const SchedulerConfig& config) {
  const auto positive = [](int value, const char* name) -> Status {
    if (value < 1) {
      return fail(ErrorKind::kInvalid,
                  std::string(name) + " must be at least 1, it is " + std::to_string(value));
    }
    return {};
  };
  for (const Status& status :
       {positive(config.max_num_seqs, "max-num-seqs"),
        positive(config.max_batch_tokens, "max-num-batched-tokens"),
        positive(config.num_blocks, "KV blocks"), positive(config.max_waiting, "max-waiting")}) {
    if (!status) {
      return status;
    }
  }
  if (config.max_model_len < 2) {
    return fail(ErrorKind::kInvalid,
                "max-model-len must be at least 2, it is " + std::to_string(config.max_model_len));
  }
  if (config.max_num_seqs > config.max_batch_tokens) {
    return fail(ErrorKind::kInvalid, "max-num-seqs (" + std::to_string(config.max_num_seqs) +
                                         ") must not be larger than max-num-batched-tokens (" +
                                         std::to_string(config.max_batch_tokens) +
                                         "): every running sequence needs a token in each step");
  }
  return {};
}

Status admissible(const SchedulerConfig& config, const GenerateRequest& request) {
  if (request.prompt.empty()) {
    return fail(ErrorKind::kInvalid, "the prompt has no tokens");
  }
  if (request.max_tokens < 1) {
    return fail(ErrorKind::kInvalid,
                "max_tokens must be at least 1, it is " + std::to_string(request.max_tokens));
  }
  if (request.prompt.size() >= static_cast<std::size_t>(config.context_limit())) {
    return fail(ErrorKind::kInvalid, "the prompt has " + std::to_string(request.prompt.size()) +
                                         " tokens; the context holds " +
                                         std::to_string(config.context_limit()) +
                                         ", at least one of them for the answer");
  }
  return validate(request.sampling);
}

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config), pool_(config.num_blocks), cache_(pool_, random_hash_key()) {
  const Status valid = validate(config);
  invariant(valid.has_value(), "the scheduler's configuration was validated");
}

Scheduler::~Scheduler() = default;

void Scheduler::submit(SequenceId id, GenerateRequest request) {
  invariant(id > last_id_, "sequence ids grow");
  invariant(admissible(config_, request).has_value(), "a submitted request is admissible");
  last_id_ = id;
  auto s = std::make_unique<Sequence>();
  s->id = id;
  s->tokens = std::exchange(request.prompt, {});
  s->prompt_size = s->size();
  s->request = std::move(request);
  s->keys.push_back(cache_.root(s->request.cache_salt));
  waiting_.push_back(s.get());
  sequences_.emplace(id, std::move(s));
}

std::optional<Output> Scheduler::cancel(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) {
    return std::nullopt;
  }
  Sequence& s = *it->second;
  s.cancelled = true;
  if (s.in_step) {
    return std::nullopt;
  }
  Output output = finish(s, FinishReason::kCancelled);
  remove_finished();
  return output;
}

Batch Scheduler::schedule() {
  invariant(!in_flight_, "one step at a time");
  Batch batch;
  batch.id = next_step_++;
  InFlight& step = in_flight_.emplace(InFlight{.id = batch.id, .rows = {}});
  int budget = config_.max_batch_tokens;

  // Preemption shortens running_ from its end, where no row was planned yet.
  const std::uint64_t preemptions_before = totals_.preemptions;
  for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& s = *running_[i];
    const int tokens = std::min(budget, s.size() - s.computed);
    if (!reserve(s, s.computed + tokens)) {
      break;  // it was itself the youngest
    }
    plan_row(s, tokens, step, batch);
    budget -= tokens;
  }
  // Who was just preempted is at the front of the queue; there is no room for it in this step.
  const bool preempted = totals_.preemptions != preemptions_before;
  while (!preempted && budget > 0 && admit_next()) {
    Sequence& s = *running_.back();
    const int tokens = std::min(budget, s.size() - s.computed);
    plan_row(s, tokens, step, batch);
    budget -= tokens;
  }

  if (batch.rows.empty()) {
    in_flight_.reset();
    invariant(idle(), "a step is empty only when there is no work");
  }
  return batch;
}

// Makes the sequence's blocks cover `positions`; preempts from the young end until there is room.
// False when the sequence itself had to go.
bool Scheduler::reserve(Sequence& s, int positions) {
  while (static_cast<int>(s.blocks.size()) < blocks_for(positions)) {
    if (auto block = pool_.allocate()) {
      s.blocks.push_back(std::move(*block));
      continue;
    }
    const bool is_youngest = running_.back() == &s;
    invariant(!is_youngest || running_.size() > 1, "one sequence alone fits into the cache");
    preempt_youngest();
    if (is_youngest) {
      return false;
    }
  }
  return true;
}

void Scheduler::preempt_youngest() {
  Sequence& s = *running_.back();
  running_.pop_back();
  back_to_queue(s);
  waiting_.push_front(&s);
  ++totals_.preemptions;
}

void Scheduler::back_to_queue(Sequence& s) {
  invariant(!s.in_step, "a sequence in the step under way keeps its blocks");
  // From the end: the start of a text is what others are most likely to share, it is evicted last.
  while (!s.blocks.empty()) {
    s.blocks.pop_back();
  }
  s.computed = 0;
  s.offered_blocks = 0;
}

// Moves the front of the queue to running_ when there is a place and blocks for all of its tokens.
bool Scheduler::admit_next() {
  if (waiting_.empty() || running_.size() >= static_cast<std::size_t>(config_.max_num_seqs)) {
    return false;
  }
  Sequence& s = *waiting_.front();
  // At least the last token is computed, because its logits choose the next one; as a shared block
  // is never written to, the block that holds it is not taken from the cache.
  std::vector<BlockRef> hits;
  if (config_.prefix_caching) {
    const int usable = (s.size() - 1) / kBlockTokens;
    for (int block = 0; block < usable; ++block) {
      const auto i = static_cast<std::size_t>(block);
      if (s.keys.size() == i + 1) {
        s.keys.push_back(cache_.child(s.keys[i], s.block_tokens(block)));
      }
      auto hit = cache_.find(s.keys[i + 1], s.keys[i], s.block_tokens(block));
      if (!hit) {
        break;
      }
      hits.push_back(std::move(*hit));
    }
  }
  const int needed = blocks_for(s.size()) - static_cast<int>(hits.size());
  // Room for the running ones to grow into, so that the newcomer is not preempted at once.
  const int reserve_blocks = running_.empty() ? 0 : 1 + static_cast<int>(running_.size()) / 16;
  if (pool_.free_count() < needed + reserve_blocks) {
    return false;
  }
  s.blocks = std::move(hits);
  s.offered_blocks = static_cast<int>(s.blocks.size());
  s.computed = s.offered_blocks * kBlockTokens;
  if (!std::exchange(s.admitted_before, true)) {
    s.cached_prompt_tokens = s.computed;
    totals_.prompt_tokens += static_cast<std::uint64_t>(s.prompt_size);
    if (config_.prefix_caching) {
      totals_.prefix_query_tokens += static_cast<std::uint64_t>(s.prompt_size);
      totals_.prefix_hit_tokens += static_cast<std::uint64_t>(s.computed);
    }
  }
  waiting_.pop_front();
  running_.push_back(&s);
  const bool reserved = reserve(s, s.size());
  invariant(reserved, "free blocks were counted before admission");
  return true;
}

void Scheduler::plan_row(Sequence& s, int tokens, InFlight& step, Batch& batch) {
  Row row;
  row.sequence = s.id;
  row.start = s.computed;
  const auto first = s.tokens.begin() + s.computed;
  row.tokens.assign(first, first + tokens);
  const int covered = blocks_for(s.computed + tokens);
  row.block_table.reserve(static_cast<std::size_t>(covered));
  for (int i = 0; i < covered; ++i) {
    row.block_table.push_back(s.blocks[static_cast<std::size_t>(i)].id());
  }
  row.choices = s.computed + tokens == s.size() ? 1 : 0;
  row.logits = row.choices;
  row.sampling = s.request.sampling;
  s.in_step = true;
  step.rows.push_back({.sequence = &s, .tokens = tokens, .wants_sample = row.choices > 0});
  batch.rows.push_back(std::move(row));
}

std::vector<Output> Scheduler::commit(const Samples& samples) {
  const InFlight step = std::exchange(in_flight_, std::nullopt).value_or(InFlight{});
  invariant(step.id == samples.id, "samples answer the step under way");
  std::vector<Output> outputs;
  std::size_t next_sample = 0;
  for (const PlannedRow& row : step.rows) {
    Sequence& s = *row.sequence;
    s.in_step = false;
    s.computed += row.tokens;
    cache_full_blocks(s);
    std::optional<TokenId> token;
    if (row.wants_sample) {
      invariant(
          next_sample < samples.samples.size() && samples.samples[next_sample].sequence == s.id,
          "there is one sample for each row that wants one, in order");
      token = samples.samples[next_sample++].tokens.at(0);
    }
    if (s.cancelled) {
      outputs.push_back(finish(s, FinishReason::kCancelled));
    } else if (token) {
      Output output{.sequence = s.id,
                    .token = std::nullopt,
                    .finished = std::nullopt,
                    .cached_prompt_tokens = s.cached_prompt_tokens};
      if (const auto reason = append(s, *token, output)) {
        output.finished = finish(s, *reason).finished;
      }
      outputs.push_back(output);
    }
  }
  invariant(next_sample == samples.samples.size(), "no sample is left over");
  remove_finished();
  return outputs;
}

// Adds a chosen token and says whether the sequence ends with it.
std::optional<FinishReason> Scheduler::append(Sequence& s, TokenId token, Output& output) {
  const GenerateRequest& r = s.request;
  if (!r.ignore_eos && std::ranges::find(r.stop_tokens, token) != r.stop_tokens.end()) {
    return FinishReason::kStop;
  }
  s.tokens.push_back(token);
  s.losses = 0;  // new ground; recomputing what it had before is not
  output.token = token;
  ++totals_.generation_tokens;
  if (s.generated() >= r.max_tokens || s.size() >= config_.context_limit()) {
    return FinishReason::kLength;
  }
  return std::nullopt;
}

void Scheduler::cache_full_blocks(Sequence& s) {
  if (!config_.prefix_caching) {
    return;
  }
  for (; s.offered_blocks < s.computed / kBlockTokens; ++s.offered_blocks) {
    const auto i = static_cast<std::size_t>(s.offered_blocks);
    if (s.keys.size() == i + 1) {
      s.keys.push_back(cache_.child(s.keys[i], s.block_tokens(s.offered_blocks)));
    }
    cache_.insert(s.keys[i + 1], s.keys[i], s.block_tokens(s.offered_blocks), s.blocks[i]);
  }
}

Output Scheduler::finish(Sequence& s, FinishReason reason) {
  s.finished = true;
  s.in_step = false;
  finished_.push_back(s.id);
  back_to_queue(s);
  return {.sequence = s.id,
          .token = std::nullopt,
          .finished = reason,
          .cached_prompt_tokens = s.cached_prompt_tokens};
}

void Scheduler::remove_finished() {
  if (finished_.empty()) {
    return;
  }
  const auto gone = [](const Sequence* s) { return s->finished; };
  std::erase_if(running_, gone);
  std::erase_if(waiting_, gone);
  for (const SequenceId id : finished_) {
    sequences_.erase(id);
  }
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
    if (s.cancelled) {
      ended.push_back(finish(s, FinishReason::kCancelled));
    } else if (s.losses >= kMaxLosses) {
      ended.push_back(finish(s, FinishReason::kError));
    } else {
      back_to_queue(s);
      waiting_.push_front(&s);
    }
  }
  running_.clear();
  remove_finished();
  cache_.clear();
  return ended;
}

std::vector<Output> Scheduler::fail_step() {
  std::vector<Output> ended;
  if (in_flight_) {
    for (const PlannedRow& row : in_flight_->rows) {
      Sequence& s = *row.sequence;
      ended.push_back(finish(s, s.cancelled ? FinishReason::kCancelled : FinishReason::kError));
    }
    in_flight_.reset();
    remove_finished();
  }
  std::ranges::move(requeue_all(), std::back_inserter(ended));
  return ended;
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = totals_;
  stats.waiting = static_cast<int>(waiting_.size());
  stats.running = static_cast<int>(running_.size());
  stats.blocks_used = pool_.used_count();
  return stats;
}

void Scheduler::check_invariants() const {
  std::vector<int> refs(static_cast<std::size_t>(pool_.size()), 0);
  SequenceId previous = 0;
  for (const Sequence* s : running_) {
    invariant(s->id > previous, "running sequences are in the order of submission");
    previous = s->id;
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
      invariant(static_cast<int>(i) < s->computed / kBlockTokens || pool_.ref_count(id) == 1,
                "a block that is still written to has one owner");
    }
  }
  for (const Sequence* s : waiting_) {
    invariant(s->id > previous, "the queue is in the order of submission, younger than running");
    previous = s->id;
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
