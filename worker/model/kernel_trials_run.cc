// Trials of kernels on the GPU: two ranks with the same weights do the same steps in turns.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "worker/device/devices.h"
#include "worker/device/same_bits.h"
#include "worker/engine/batch.h"
#include "worker/model/kernel_trials.h"
#include "worker/model/lone_rank.h"
#include "worker/model/rank_model.h"

namespace dsm::model {
namespace {

using engine::Batch;
using engine::kBlockTokens;

constexpr int kWarmUp = 3;           // a step is recorded when it comes the second time
constexpr int kPast = kBlockTokens;  // positions that are there before a step of decoding

// Tokens [start, start + tokens) of a sequence. All of them have the same past, in block 0, and go
// on in a block of their own.
engine::Row row_of(int sequence, int start, int tokens, int vocab) {
  engine::Row row;
  row.start = start;
  row.logits = row.choices = 1;
  for (int i = 0; i < tokens; ++i) {
    row.tokens.push_back((sequence * 131 + (start + i) * 17 + 1) % vocab);
  }
  row.block_table.push_back(0);
  for (int b = 1; b * kBlockTokens < start + tokens; ++b) {
    row.block_table.push_back(sequence + b);
  }
  return row;
}

// Whether the deterministic mode has the same bits by its kernel for many rows: for inputs that a
// model may never have, which imagined weights are not.
bool bits_are_the_same() {
  const auto backend = [](const device::KernelChoice& kernels) {
    return device::make_backend({.device = device::Device::kCuda, .kernels = kernels});
  };
  return device::different_bits(*backend(device::proven_kernels()),
                                *backend(kernels_of(TrialKind::kWideExact)))
      .empty();
}

class Trials {
 public:
  Trials(std::unique_ptr<RankModel> proven, int repeats)
      : proven_(std::move(proven)), repeats_(repeats), vocab_(proven_->config().vocab_size) {}

  TrialSeen run(const Trial& trial) {
    const auto tried = proven_->beside(kernels_of(trial.kind));
    TrialSeen seen{.kind = trial.kind, .steps = {}};
    for (const TrialStep& step : trial.steps) {
      const Batch batch = batch_of(step, *tried);
      StepSeen now = times(batch, *tried);
      now.rows = step.rows();
      now.difference = difference(batch, step.tokens > 1, *tried);
      seen.steps.push_back(now);
    }
    if (trial.kind == TrialKind::kWideExact && !bits_are_the_same()) {
      for (StepSeen& step : seen.steps) step.difference = std::numeric_limits<double>::infinity();
    }
    return seen;
  }

 private:
  // A prompt, or a step of decoding whose sequences have a past in both caches.
  Batch batch_of(const TrialStep& step, RankModel& tried) {
    Batch batch{1, {}};
    const int start = step.tokens > 1 ? 0 : kPast;
    if (start > 0) {
      const Batch past{1, {row_of(0, 0, kPast, vocab_)}};
      for (RankModel* model : {proven_.get(), &tried}) model->forward(past, alone_);
    }
    for (int s = 0; s < step.sequences; ++s) {
      batch.rows.push_back(row_of(s, start, step.tokens, vocab_));
    }
    return batch;
  }

  double microseconds(const Batch& batch, RankModel& by) {
    const auto begin = std::chrono::steady_clock::now();
    by.choose(batch, alone_);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
        .count();
  }

  // Medians. In turns, so that both have the same clocks; and each finds in the caches what the
  // other has left there, which is less than a layer of a model whose speed matters.
  StepSeen times(const Batch& batch, RankModel& tried) {
    std::vector<double> of_proven;
    std::vector<double> of_tried;
    const bool recorded = batch.rows[0].tokens.size() == 1;
    const int warm_up = recorded ? kWarmUp : 1;
    for (int i = 0; i < warm_up + repeats_; ++i) {
      const double a = microseconds(batch, *proven_);
      const double b = microseconds(batch, tried);
      if (i < warm_up) continue;
      of_proven.push_back(a);
      of_tried.push_back(b);
    }
    const auto median = [](std::vector<double>& all) {
      std::ranges::sort(all);
      return all[all.size() / 2];
    };
    return {
        .rows = 0, .difference = 0, .proven_us = median(of_proven), .tried_us = median(of_tried)};
  }

  // Of what both give for the tokens of a prompt, or for each sequence by the steps that were
  // timed.
  double difference(const Batch& batch, bool prompt, RankModel& tried) {
    const auto logits = [&](RankModel& by) {
      return prompt ? by.forward_all(batch, alone_) : by.forward(batch, alone_);
    };
    const auto a = logits(*proven_);
    const auto b = logits(tried);
    double squares = 0;
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      squares += double{a[i]} * a[i];
      const double apart = std::abs(double{a[i]} - b[i]);
      if (!(apart <= most)) most = apart;
      if (std::isnan(apart)) return std::numeric_limits<double>::infinity();
    }
    if (a.empty() || a.size() != b.size() || !(squares > 0)) {
      return std::numeric_limits<double>::infinity();
    }
    return most / std::sqrt(squares / static_cast<double>(a.size()));
  }

  std::unique_ptr<RankModel> proven_;
  int repeats_;
  int vocab_;
  LoneRank alone_{0};
};

}  // namespace

Status run_trials(const TrialsAsked& asked,
                  const std::function<void(const std::string& line)>& say) {
  const TriedModel& model = asked.model;
  int rows = kPast;
  int blocks = 1;
  for (const Trial& trial : asked.trials) {
    for (const TrialStep& step : trial.steps) {
      rows = std::max(rows, step.rows());
      blocks = std::max(blocks, step.sequences + step.tokens / kBlockTokens + 1);
    }
  }
  const bool integers = model.config.integers.has_value();
  auto proven =
      RankModel::imagined(layers_of(model),
                          {.device = device::Device::kCuda,
                           .kernels = device::proven_kernels(),
                           .threads = model.threads,
                           .deterministic = model.deterministic,
                           .fp8_activations = model.fp8_activations,
                           .round_weights = integers ? std::optional(model.config.integers->dtype)
                                                     : model.round_weights},
                          {.num_blocks = blocks, .dtype = model.kv_dtype}, rows);
  if (!proven) return std::unexpected(proven.error());
  Trials all(std::move(*proven), asked.repeats);
  for (const Trial& trial : asked.trials) {
    say(line_of_begin(trial.kind));
    say(line_of(all.run(trial)));
  }
  say(line_of_end());
  return {};
}

}  // namespace dsm::model
