#include "kernels/cuda/emulation/graph.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

using Sequence = std::vector<dsm::emulation::Work>;

struct CUgraph_st {
  Sequence work;
};
struct CUgraphExec_st {
  std::shared_ptr<const Sequence> work;
  bool sent = false;
};

namespace {

struct Captures {
  std::mutex mutex;
  std::map<cudaStream_t, std::unique_ptr<CUgraph_st>> graphs;
};
Captures& captures() {
  static Captures& captures = *new Captures;
  return captures;
}

// Of this thread: streams that it captures, and whether it has done what it must not.
thread_local int captured = 0;
thread_local bool spoilt = false;

std::atomic<std::uint64_t> started = 0;

}  // namespace

namespace dsm::emulation {

bool capture(cudaStream_t stream, Work& work) {
  const std::lock_guard lock(captures().mutex);
  const auto found = captures().graphs.find(stream);
  if (found == captures().graphs.end()) return false;
  found->second->work.push_back(std::move(work));
  return true;
}

std::uint64_t graphs_started() {
  return started;
}

bool allowed_in_capture() {
  if (captured == 0) return true;
  spoilt = true;
  set_error(cudaErrorStreamCaptureUnsupported);
  return false;
}

}  // namespace dsm::emulation

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(captures().mutex);
  if (stream == nullptr || captures().graphs.contains(stream)) {
    return dsm::emulation::set_error(cudaErrorStreamCaptureUnsupported);
  }
  captures().graphs.emplace(stream, std::make_unique<CUgraph_st>());
  ++captured;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::lock_guard lock(captures().mutex);
  auto node = captures().graphs.extract(stream);
  if (node.empty()) return dsm::emulation::set_error(cudaErrorInvalidValue);
  --captured;
  if (std::exchange(spoilt, false)) {
    return dsm::emulation::set_error(cudaErrorStreamCaptureInvalidated);
  }
  *graph = node.mapped().release();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  dsm::emulation::wait_as_for_memory();
  *executable = new CUgraphExec_st{std::make_shared<const Sequence>(graph->work)};
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t) {
  dsm::emulation::wait_as_for_memory();
  executable->sent = true;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (!executable->sent) cudaGraphUpload(executable, stream);
  ++started;
  dsm::emulation::enqueue(stream, [work = executable->work] {
    for (const auto& one : *work) one();
  });
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  dsm::emulation::wait_as_for_memory();
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
