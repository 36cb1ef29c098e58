#include "worker/device/cuda_graphs.h"

#include <algorithm>
#include <iterator>

namespace dsm::device {
namespace {

// More shapes of steps than a load that goes up and down has; a graph of a large model takes some
// MiB of the GPU.
constexpr std::size_t kMostGraphs = 64;

struct DestroyTemplate {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Template = std::unique_ptr<CUgraph_st, DestroyTemplate>;

// Ends the recording in any case: a stream that records can do nothing else.
class Recording {
 public:
  explicit Recording(const Stream& stream) : stream_(stream) {
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "record a step");
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    if (ended_) return;
    static_cast<void>(end());
    cudaGetLastError();  // that it was broken off is no error of what comes next
  }
  Template end() {
    ended_ = true;
    cudaGraph_t graph = nullptr;
    status_ = cudaStreamEndCapture(stream_.get(), &graph);
    return Template(graph);
  }
  cudaError_t status() const { return status_; }

 private:
  const Stream& stream_;
  bool ended_ = false;
  cudaError_t status_ = cudaSuccess;
};

// A value that is `to` as long as it lives, and nothing afterwards.
class Setting {
 public:
  Setting(int& value, int to) : value_(value) { value_ = to; }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;
  ~Setting() { value_ = 0; }

 private:
  int& value_;
};

// Lists go to a buffer as long as it lives.
class RecordedLists {
 public:
  RecordedLists(Lists& lists, Lists::Buffer& to) : lists_(lists) { lists_.record(&to); }
  RecordedLists(const RecordedLists&) = delete;
  RecordedLists& operator=(const RecordedLists&) = delete;
  ~RecordedLists() { lists_.record(nullptr); }

 private:
  Lists& lists_;
};

}  // namespace

void CudaGraphs::forget() {
  dropped_.clear();
  entries_.clear();
  shared_ = nullptr;
}

// Memory moves only when nothing on the stream uses it.
void CudaGraphs::drop_moved() {
  if (moved()) entries_.clear();
  moves_ = stream_.moves();
}

// Graphs whose memory has moved stay until all ranks drop theirs, but are not started any more.
void CudaGraphs::drop_together(const SharedSteps::Step& step) {
  if (entries_.empty()) moves_ = stream_.moves();
  if (step.drops()) {
    stream_.wait();
    dropped_.clear();
    entries_.clear();
    moves_ = stream_.moves();
    shared_->meet();
  } else if (moved()) {
    shared_->ask_to_drop();
  }
}

CudaGraphs::Entry* CudaGraphs::find(const RepeatKey& key) {
  const auto found = std::ranges::find_if(entries_, [&](const Entry& entry) {
    return entry.key == key && std::ranges::equal(entry.sizes, sent_.sizes());
  });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return &entries_.front();
}

void CudaGraphs::repeat(const RepeatKey& key, const Operators& operators) {
  if (shared_ == nullptr) {
    drop_moved();
    return do_step(key, operators);
  }
  const SharedSteps::Step step(*shared_);
  drop_together(step);
  do_step(key, operators);
}

// All ranks find the same entries, and record the same: what moved() says is another matter.
void CudaGraphs::do_step(const RepeatKey& key, const Operators& operators) {
  Entry* entry = find(key);
  if (entry == nullptr) return run_first(key, operators);
  if (entry->plain) return run(key, operators);
  if (entry->graph == nullptr) {
    record(*entry, operators);
  } else if (moved()) {
    return run(key, operators);
  }
  check(cudaGraphLaunch(entry->graph.get(), stream_.get()), "start a step");
}

void CudaGraphs::run(const RepeatKey& key, const Operators& operators) {
  const Setting positions(positions_, key.positions);
  operators();
}

void CudaGraphs::run_first(const RepeatKey& key, const Operators& operators) {
  const std::size_t before = lists_.taken();
  run(key, operators);
  if (shared_ == nullptr) drop_moved();
  if (entries_.empty()) moves_ = stream_.moves();
  if (entries_.size() >= kMostGraphs) {
    dropped_.splice(dropped_.begin(), entries_, std::prev(entries_.end()));
  }
  Entry& entry = entries_.emplace_front();
  entry.key = key;
  entry.sizes.assign(sent_.sizes().begin(), sent_.sizes().end());
  entry.list_bytes = lists_.taken() - before;
  entry.plain = shared_ != nullptr && shared_->is_plain();
}

void CudaGraphs::record(Entry& entry, const Operators& operators) {
  if (!dropped_.empty()) {
    stream_.wait();  // one may be in work
    dropped_.clear();
  }
  // Lists that stay the same, those of weights: sent once, beside the graph.
  entry.lists = Lists::buffer(std::max<std::size_t>(entry.list_bytes, 1));
  lists_.send();  // what else is on its way
  Template steps;
  {
    const Setting positions(positions_, entry.key.positions);
    const RecordedLists recorded(lists_, entry.lists);
    Recording recording(stream_);
    operators();
    steps = recording.end();
    check(recording.status(), "record a step");
  }
  check(cudaMemcpyAsync(entry.lists.device.get(), entry.lists.host.get(), entry.list_bytes,
                        cudaMemcpyHostToDevice, stream_.get()),
        "copy lists");
  cudaGraphExec_t graph = nullptr;
  check(cudaGraphInstantiate(&graph, steps.get(), 0), "prepare a step");
  entry.graph.reset(graph);
  steps.reset();
  if (shared_ == nullptr) return;
  // Its first start would do this, beside kernels that wait.
  check(cudaGraphUpload(graph, stream_.get()), "send a step");
  stream_.wait();
  shared_->meet();
}

}  // namespace dsm::device
