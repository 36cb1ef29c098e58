// A model that says what a test tells it to: the same tokens to every sequence, when the test lets
// it. Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "worker/engine/runner.h"

namespace dsm::server {

class ScriptedRunner final : public engine::Runner {
 public:
  // The answer of every sequence that starts from now on.
  void say(std::vector<engine::TokenId> tokens) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(tokens);
  }
  // Steps wait until there is a permit; a negative number is no limit.
  void permit(int steps) {
    const std::lock_guard lock(mutex_);
    permits_ = steps;
    changed_.notify_all();
  }
  // The next step ends with this error.
  void fail_next(Error error) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(error);
    changed_.notify_all();
  }
  // Steps that the engine has begun.
  int submitted() const {
    const std::lock_guard lock(mutex_);
    return submitted_;
  }
  // The batches' sampling parameters, as they came.
  std::vector<engine::SamplingParams> sampling() const {
    const std::lock_guard lock(mutex_);
    return sampling_;
  }
  // Prompts, in the order in which they were computed first.
  std::vector<std::vector<engine::TokenId>> prompts() const {
    const std::lock_guard lock(mutex_);
    return prompts_;
  }

  // The adapters of those prompts.
  std::vector<engine::AdapterId> adapters() const {
    const std::lock_guard lock(mutex_);
    return adapters_;
  }

  Status submit(engine::Batch batch) override {
    const std::lock_guard lock(mutex_);
    batch_ = std::move(batch);
    ++submitted_;
    return {};
  }
  Result<std::optional<engine::Samples>> poll(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    if (!batch_) return std::nullopt;
    const auto may_go = [this] { return permits_ != 0 || failure_.has_value(); };
    if (!changed_.wait_until(lock, deadline, may_go)) return std::nullopt;
    if (const auto failure = std::exchange(failure_, std::nullopt)) {
      batch_.reset();
      return std::unexpected(*failure);
    }
    if (permits_ > 0) --permits_;
    engine::Samples samples{.id = batch_->id, .samples = {}};
    for (const engine::Row& row : batch_->rows) {
      if (row.start == 0) {
        prompts_.push_back(row.tokens);
        sampling_.push_back(row.sampling);
        adapters_.push_back(row.adapter);
        answers_[row.sequence] = {script_, 0};
      }
      if (row.choices == 0) continue;
      // Of a prompt whose beginning is in the prefix cache there is no row that starts at 0.
      auto& [tokens, said] = answers_.try_emplace(row.sequence, script_, 0).first->second;
      samples.samples.push_back(
          {.sequence = row.sequence, .tokens = {tokens[said++ % tokens.size()]}});
    }
    batch_.reset();
    return samples;
  }
  // Whether the ranks sleep.
  bool asleep() const {
    const std::lock_guard lock(mutex_);
    return asleep_;
  }
  void sleep(bool asleep) override {
    const std::lock_guard lock(mutex_);
    asleep_ = asleep;
  }
  bool recover(TimePoint) override { return true; }
  void condemn(std::string) override {}

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<engine::TokenId> script_;
  int permits_ = -1;
  int submitted_ = 0;
  bool asleep_ = false;
  std::optional<Error> failure_;
  std::optional<engine::Batch> batch_;
  std::unordered_map<engine::SequenceId, std::pair<std::vector<engine::TokenId>, std::size_t>>
      answers_;
  std::vector<std::vector<engine::TokenId>> prompts_;
  std::vector<engine::SamplingParams> sampling_;
  std::vector<engine::AdapterId> adapters_;
};

}  // namespace dsm::server
