#include "worker/device/cuda_graphs.h"

#include <algorithm>

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

// Memory moves only when nothing on the stream uses it.
void CudaGraphs::drop_moved() {
  if (moves_ != stream_.moves()) entries_.clear();
  moves_ = stream_.moves();
}

CudaGraphs::Entry* CudaGraphs::find(const RepeatKey& key) {
  drop_moved();
  const auto found = std::ranges::find_if(entries_, [&](const Entry& entry) {
    return entry.key == key && std::ranges::equal(entry.sizes, sent_.sizes());
  });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return &entries_.front();
}

void CudaGraphs::repeat(const RepeatKey& key, const std::function<void()>& operators) {
  Entry* entry = find(key);
  if (entry == nullptr) return run_first(key, operators);
  if (entry->graph == nullptr) record(*entry, operators);
  check(cudaGraphLaunch(entry->graph.get(), stream_.get()), "start a step");
}

void CudaGraphs::run_first(const RepeatKey& key, const std::function<void()>& operators) {
  const std::size_t before = lists_.taken();
  {
    const Setting positions(positions_, key.positions);
    operators();
  }
  drop_moved();
  if (entries_.size() >= kMostGraphs) {
    stream_.wait();  // the oldest may be in work
    entries_.pop_back();
  }
  Entry& entry = entries_.emplace_front();
  entry.key = key;
  entry.sizes.assign(sent_.sizes().begin(), sent_.sizes().end());
  entry.list_bytes = lists_.taken() - before;
}

void CudaGraphs::record(Entry& entry, const std::function<void()>& operators) {
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
}

}  // namespace dsm::device
