// Steps of the CUDA backend that are recorded as graphs: what a step's operators put on the stream
// is recorded when the same key comes the second time, and from then on started as a whole, by one
// call. The first time they run as they are, and what they need of scratch memory and of lists is
// known from then on.
//
// A graph holds addresses of memory, so all are dropped when memory moves (Stream::moves()); the
// kernels in it read what the step is about from the lists that are staged. Ranks whose sums are
// recorded, too, drop theirs together, a step later (shared_steps.h).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "worker/device/backend.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_sent_lists.h"
#include "worker/device/shared_steps.h"

namespace dsm::device {

struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using Graph = std::unique_ptr<CUgraphExec_st, DestroyGraph>;

class CudaGraphs {
 public:
  CudaGraphs(const Stream& stream, Lists& lists, const SentLists& sent)
      : stream_(stream), lists_(lists), sent_(sent) {}

  // As Backend::repeat().
  void repeat(const RepeatKey& key, const std::function<void()>& operators);
  // The ranks of an epoch have met: steps are recorded as these do. `shared` lives until forget().
  void record_with(SharedSteps* shared) { shared_ = shared; }
  // Drops all of them, while none is in work. What is recorded from here on is this rank's alone.
  void forget();
  // That the operators which are being called must not go by the host's places: tokens may stand
  // anywhere below it. 0: they may.
  int positions() const { return positions_; }

 private:
  struct Entry {
    RepeatKey key;
    std::vector<std::size_t> sizes;  // of the staged lists
    std::size_t list_bytes = 0;      // that the operators put
    Lists::Buffer lists;             // of the graph's kernels
    Graph graph;                     // null: seen once
    bool plain = false;              // it is not to be recorded
  };
  using Operators = std::function<void()>;
  bool moved() const { return moves_ != stream_.moves(); }
  void drop_moved();
  void drop_together(const SharedSteps::Step& step);
  void do_step(const RepeatKey& key, const Operators& operators);
  Entry* find(const RepeatKey& key);
  void run(const RepeatKey& key, const Operators& operators);
  void run_first(const RepeatKey& key, const Operators& operators);
  void record(Entry& entry, const Operators& operators);

  const Stream& stream_;
  Lists& lists_;
  const SentLists& sent_;
  SharedSteps* shared_ = nullptr;  // of ranks that record together; null: this one does alone
  std::list<Entry> entries_;       // the latest used first
  std::list<Entry> dropped_;       // to be freed when the next is recorded
  std::uint64_t moves_ = 0;        // of memory, when the entries were made
  int positions_ = 0;
};

}  // namespace dsm::device
