// The seam between deciding and computing: the engine submits a Batch and polls for its Samples.
// Real runs use the group runner (model on this and other ranks); tests use scripted tokens. Called
// from the engine thread only.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "worker/engine/batch.h"

namespace dsm::engine {

class Runner {
 public:
  virtual ~Runner() = default;
  // Starts a step; does not wait for it. Steps finish in the order of submission.
  // kTransient: the group is broken (a rank was lost); the step is not running, KV contents are
  // lost.
  virtual Status submit(Batch batch) = 0;
  // Waits until the oldest step finished or the deadline passed (then nullopt). With no step in
  // flight and a deadline that has passed it tells whether the group is still whole.
  // kTransient as for submit(): all steps in flight are gone, KV contents are lost.
  virtual Result<std::optional<Samples>> poll(TimePoint deadline) = 0;
  // Before the first submit() and after kTransient: waits until the ranks have met again or the
  // deadline passed. True when steps can be submitted again, with an empty KV cache.
  virtual bool recover(TimePoint deadline) = 0;
  // With no step in flight: the epoch ends and the ranks give their devices' memory back, or take
  // it again. Does not wait for them. What comes after sleep(false) is recover().
  virtual void sleep(bool /*asleep*/) {}
  // The ranks answer wrongly, `why` says how: nothing may be computed with them any more.
  virtual void condemn(std::string why) = 0;
};

}  // namespace dsm::engine
