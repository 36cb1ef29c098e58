#include "worker/model/mtp.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace dsm::model {
namespace {

constexpr std::size_t kFieldsPerRow = 3;

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("draft: ") + what);
}

}  // namespace

Mtp::Mtp(Step& step, const ModelWeights& weights, Attention& attention, Mlp& mlp)
    : step_(step), weights_(weights), mtp_(*weights.mtp), attention_(attention), mlp_(mlp) {
  const auto t = static_cast<std::size_t>(step.max_tokens);
  const auto hidden = static_cast<std::size_t>(step.c.hidden_size);
  states_ = device::allocate<float>(step.backend, t * hidden);
  joined_ = device::allocate<float>(step.backend, t * 2 * hidden);
  hidden_ = device::allocate<float>(step.backend, t * hidden);
  sequences_.reserve(t);
  asking_.reserve(t);
  wanted_.reserve(t);
  state_rows_.reserve(t);
}

std::span<const engine::TokenId> Mtp::run(std::span<const DraftRow> rows, int vocab) {
  share_rows(rows, vocab);
  take_main_states();
  std::int32_t most = 0;
  for (const Sequence& sequence : sequences_) most = std::max(most, sequence.row.wanted);
  for (int draft = 0;; ++draft) {
    if (step_.tokens > 0) run_layer();
    if (asking_.empty()) break;
    choose(draft);
    if (draft + 1 >= most) break;
    take_own_states(draft + 1);
  }
  step_.backend.wait();  // the host writes the next batch's lists
  return drafts_;
}

// Rank 0 knows what was chosen; all ranks draft from the same.
void Mtp::share_rows(std::span<const DraftRow> rows, int vocab) {
  const std::size_t count = step_.runs.size();
  message_.assign(1 + count * kFieldsPerRow, 0);
  if (step_.rank == 0) {
    require(rows.size() == count, "rows are not those of the batch");
    message_[0] = vocab;
    for (std::size_t i = 0; i < count; ++i) {
      std::int32_t* fields = message_.data() + 1 + i * kFieldsPerRow;
      fields[0] = rows[i].kept;
      fields[1] = rows[i].next;
      fields[2] = rows[i].wanted;
    }
  }
  if (step_.ranks > 1) step_.comm->broadcast(std::as_writable_bytes(std::span(message_)), 0);
  vocab_ = message_[0];
  sequences_.clear();
  std::size_t drafts = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t* fields = message_.data() + 1 + i * kFieldsPerRow;
    const DraftRow row{.kept = fields[0], .next = fields[1], .wanted = fields[2]};
    const TokenRun& run = step_.runs[i];
    require(row.kept >= 1 && row.kept <= run.size, "kept is not a number of the row's tokens");
    require(row.next >= -1 && row.next < step_.c.vocab_size, "a token is not in the vocabulary");
    require(row.wanted >= 0 && (row.wanted == 0 || row.next >= 0),
            "drafts are wanted after a token that is not known");
    sequences_.push_back({row, run, step_.places[run.begin].position, drafts, 0});
    drafts += static_cast<std::size_t>(row.wanted);
  }
  drafts_.assign(drafts, -1);
}

// The first pass: every token that stands, with the one that follows it.
void Mtp::take_main_states() {
  state_rows_.clear();
  wanted_.clear();
  asking_.clear();
  for (const Sequence& sequence : sequences_) {
    for (int i = 0; i < sequence.row.kept; ++i) state_rows_.push_back(sequence.run.begin + i);
  }
  step_.backend.rms_norm({step_.x, step_.c.hidden_size, state_rows_.data(), weights_.final_norm,
                          states_, step_.c.hidden_size, static_cast<int>(state_rows_.size()),
                          step_.c.hidden_size, static_cast<float>(step_.c.rms_eps)});
  step_.clear();
  for (Sequence& sequence : sequences_) {
    const DraftRow& row = sequence.row;
    const TokenRun& run = sequence.run;
    step_.add_run(run.block_table, run.blocks, run.rank);
    for (int i = 0; i < row.kept; ++i) {
      // Tokens move towards the front, so what is read here has not been written over yet.
      step_.add_token(i + 1 < row.kept ? step_.token_ids[run.begin + i + 1] : row.next,
                      sequence.start + i);
    }
    if (row.wanted == 0) continue;
    wanted_.push_back(step_.tokens - 1);
    asking_.push_back(&sequence);
  }
}

bool Mtp::reaches(const Sequence& sequence, std::int32_t position) const {
  return position < step_.c.max_positions && position / kernels::kKvBlock < sequence.run.blocks;
}

// A later pass: the last draft of each sequence that wants another.
void Mtp::take_own_states(int draft) {
  state_rows_.clear();
  wanted_.clear();
  asking_.clear();
  step_.clear();
  for (Sequence& sequence : sequences_) {
    const auto position = sequence.start + sequence.row.kept - 1 + draft;
    if (sequence.row.wanted <= draft || !reaches(sequence, position)) continue;
    step_.add_run(sequence.run.block_table, sequence.run.blocks, sequence.run.rank);
    step_.add_token(drafts_[sequence.first + static_cast<std::size_t>(draft) - 1], position);
    state_rows_.push_back(sequence.hidden);
    wanted_.push_back(step_.tokens - 1);
    asking_.push_back(&sequence);
  }
  const auto hidden = static_cast<std::size_t>(step_.c.hidden_size);
  for (std::size_t i = 0; i < state_rows_.size(); ++i) {
    step_.backend.copy(states_ + i * hidden,
                       hidden_ + static_cast<std::size_t>(state_rows_[i]) * hidden, hidden);
  }
}

void Mtp::run_layer() {
  const int width = step_.c.hidden_size;
  const auto eps = static_cast<float>(step_.c.rms_eps);
  // There is no embedding where a next token is not known, and none at position 0, as in the
  // layer's training.
  for (int i = 0; i < step_.tokens; ++i) {
    if (step_.places[i].position == 0) step_.token_ids[i] = -1;
  }
  stage(step_, attention_, wanted_);
  step_.backend.embedding({step_.token_ids, weights_.embedding, weights_.embedding_dtype, step_.x,
                           step_.tokens, width, weights_.embedding_scales});
  step_.backend.rms_norm(
      {step_.x, width, nullptr, mtp_.embedding_norm, joined_, 2 * width, step_.tokens, width, eps});
  step_.backend.rms_norm({states_, width, nullptr, mtp_.state_norm, joined_ + width, 2 * width,
                          step_.tokens, width, eps});
  step_.linear({.x = joined_, .w = &mtp_.join, .y = step_.x, .ldy = width});
  attend(step_, attention_, step_.c.num_layers, mtp_.layer);
  mlp_.run(step_, step_.c.num_layers, mtp_.layer);
}

void Mtp::choose(int draft) {
  const int width = step_.c.hidden_size;
  const std::size_t n = wanted_.size();
  const auto local = static_cast<std::size_t>(weights_.head.n);
  const float* logits = logits_.at_least(step_.backend, n * local);
  best_.resize(2 * n);
  step_.backend.rms_norm({step_.x, width, wanted_.data(), mtp_.norm, hidden_, width,
                          static_cast<int>(n), width, static_cast<float>(step_.c.rms_eps)});
  step_.backend.linear({.x = hidden_,
                        .ldx = width,
                        .w = &weights_.head,
                        .y = logits_.data(),
                        .ldy = static_cast<std::int64_t>(local),
                        .rows = static_cast<int>(n)});
  step_.backend.wait();
  const std::size_t begin = static_cast<std::size_t>(step_.rank) * local;
  for (std::size_t i = 0; i < n; ++i) {
    float best = -std::numeric_limits<float>::infinity();
    std::size_t at = begin;
    for (std::size_t v = 0; v < local && begin + v < static_cast<std::size_t>(vocab_); ++v) {
      const float logit = logits[i * local + v];
      if (!(logit > best)) continue;
      best = logit;
      at = begin + v;
    }
    best_[i] = best;
    best_[n + i] = static_cast<float>(at);  // exact: vocabularies have at most 2^24 tokens
  }
  std::span<const float> all = best_;
  if (step_.ranks > 1) {
    all_best_.resize(2 * n * static_cast<std::size_t>(step_.ranks));
    step_.comm->all_gather(best_, all_best_);
    all = all_best_;
  }
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t from = 0;  // ranks hold rising ids: on a tie the first has the lowest
    for (std::size_t r = 1; r < static_cast<std::size_t>(step_.ranks); ++r) {
      if (all[2 * n * r + i] > all[2 * n * from + i]) from = r;
    }
    Sequence& sequence = *asking_[i];
    sequence.hidden = static_cast<int>(i);
    drafts_[sequence.first + static_cast<std::size_t>(draft)] =
        static_cast<engine::TokenId>(all[2 * n * from + n + i]);
  }
}

}  // namespace dsm::model
