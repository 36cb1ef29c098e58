// A scheduler that runs on the fake model, step by step, for tests.
#pragma once

#include <map>
#include <numeric>
#include <vector>

#include "worker/engine/fake_model.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {

inline std::vector<TokenId> prompt(int size, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

inline GenerateRequest request(int prompt_size, int max_tokens, TokenId first = 0) {
  GenerateRequest r;
  r.prompt = prompt(prompt_size, first);
  r.max_tokens = max_tokens;
  return r;
}

inline SchedulerConfig small() {
  return {.max_num_seqs = 4,
          .max_batch_tokens = 128,
          .max_model_len = 512,
          .num_blocks = 16,
          .prefix_caching = true,
          .max_waiting = 8};
}

// Runs steps with the fake model and collects what each sequence received.
struct Loop {
  explicit Loop(const SchedulerConfig& config = small())
      : scheduler(config), model(config.num_blocks) {}

  Batch step() {
    Batch batch = scheduler.schedule();
    if (!batch.rows.empty()) {
      take(scheduler.commit(model.run(batch)));
    }
    scheduler.check_invariants();
    return batch;
  }
  void run() {
    while (!scheduler.idle()) {
      step();
    }
  }
  void take(const std::vector<Output>& outputs) {
    for (const Output& o : outputs) {
      auto& received = tokens[o.sequence];
      received.insert(received.end(), o.tokens.begin(), o.tokens.end());
      if (o.finished) {
        finished[o.sequence] = *o.finished;
      }
      cached[o.sequence] = o.cached_prompt_tokens;
    }
  }

  Scheduler scheduler;
  FakeModel model;
  std::map<SequenceId, std::vector<TokenId>> tokens;
  std::map<SequenceId, FinishReason> finished;
  std::map<SequenceId, int> cached;
};

}  // namespace dsm::engine
