// What ranks of one process have to do together where they record steps that repeat
// (cuda_graphs.h). All ranks have the same such steps in the same order, and come to the same
// graphs. Whether a step is recorded, started from a graph or run as it is, a rank puts the same
// kernels between ranks on its stream; so ranks that do not do alike in a step are in nobody's way.
// But what takes or frees memory, as recording does, must not be done while kernels of other ranks
// wait for this one: so ranks meet on the host after it, before any of them starts its part of the
// step.
//
// The memory of one rank alone may move. It then asks that all drop their graphs in the next step,
// which costs nobody any waiting: a rank begins a step when the one before is done, and that has a
// part of every rank which came after the asking.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "worker/comm/communicator.h"

namespace dsm::device {

class SharedSteps {
 public:
  // Collective; `ranks` are threads of this process and outlive it.
  explicit SharedSteps(comm::Communicator& ranks);
  SharedSteps(const SharedSteps&) = delete;
  SharedSteps& operator=(const SharedSteps&) = delete;

  // A step that repeats, as long as it lives.
  class Step {
   public:
    explicit Step(SharedSteps& steps) : steps_(steps), drops_(steps.begin()) {}
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;
    ~Step() { steps_.in_step_ = false; }
    // Some rank has asked for it in the step before: the same on all ranks.
    bool drops() const { return drops_; }

   private:
    SharedSteps& steps_;
    const bool drops_;
  };
  bool in_step() const { return in_step_; }

  // In a step, before anything of it is on the stream.
  void ask_to_drop();
  // All ranks have come here. Throws comm::CommError.
  void meet() { ranks_.barrier(); }

  // Something of this step is not to be recorded: the same on all ranks.
  void stay_plain() { plain_ = true; }
  bool is_plain() const { return plain_; }

 private:
  // The number of the last step in which a rank has asked, of those with even and odd numbers: a
  // rank may be a step ahead of those that read.
  using Asked = std::array<std::atomic<std::uint64_t>, 2>;
  bool begin();

  comm::Communicator& ranks_;
  const std::shared_ptr<Asked> own_;
  std::vector<std::shared_ptr<Asked>> all_;
  std::uint64_t number_ = 0;  // of the step in work, or of the last
  bool in_step_ = false;
  bool plain_ = false;
};

}  // namespace dsm::device
