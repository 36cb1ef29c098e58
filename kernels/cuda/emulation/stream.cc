#include "kernels/cuda/emulation/stream.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "kernels/cuda/emulation/graph.h"
#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/turns.h"

namespace {

struct Item {
  dsm::emulation::Work work;
  std::function<bool()> ready;  // null: it always is
};

struct Queue {
  std::deque<Item> work;
  bool busy = false;  // a thread does its work
};

// What an event was recorded as the last time.
struct Mark {
  std::shared_ptr<Queue> queue;
  bool reached = false;
  std::chrono::steady_clock::time_point when;
};

}  // namespace

struct CUstream_st {
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
};
struct CUevent_st {
  std::shared_ptr<Mark> mark;
};

namespace {

// Of all streams; their work is done outside of the mutex.
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::set<CUstream_st*> streams;
  CUstream_st default_stream;
};
State& state() {
  static State& state = *new State;
  return state;
}

CUstream_st& stream_of(cudaStream_t stream) {
  return stream != nullptr ? *stream : state().default_stream;
}

enum class Unready { kWait, kLeave };

// Does the queue's work in order until `enough` or until there is none. False: it has left some
// that was not ready.
template <class Enough>
bool work_until(const std::shared_ptr<Queue>& queue, const Enough& enough,
                Unready unready = Unready::kWait) {
  const dsm::emulation::WorkOfStream device_stays_open;
  State& all = state();
  std::unique_lock lock(all.mutex);
  while (!enough()) {
    if (queue->busy) {
      dsm::emulation::close_access();
      all.changed.wait(lock);
      continue;
    }
    if (queue->work.empty()) return true;
    if (const auto& ready = queue->work.front().ready; ready && !ready()) {
      if (unready == Unready::kLeave) return false;
      lock.unlock();
      dsm::emulation::close_access();
      std::this_thread::yield();
      lock.lock();
      continue;
    }
    const auto work = std::move(queue->work.front().work);
    queue->work.pop_front();
    queue->busy = true;
    lock.unlock();
    work();
    lock.lock();
    queue->busy = false;
    all.changed.notify_all();
  }
  return true;
}

bool work_all(const std::shared_ptr<Queue>& queue, Unready unready = Unready::kWait) {
  return work_until(queue, [] { return false; }, unready);
}
void work_all(CUstream_st& stream) {
  work_all(stream.queue);
}

bool reach(const std::shared_ptr<Mark>& mark, Unready unready = Unready::kWait) {
  return mark == nullptr || work_until(mark->queue, [&] { return mark->reached; }, unready);
}

std::shared_ptr<Mark> mark_of(cudaEvent_t event) {
  const std::lock_guard lock(state().mutex);
  return event->mark;
}

}  // namespace

namespace dsm::emulation {

void enqueue(cudaStream_t stream, Work work) {
  if (capture(stream, work)) return;
  const std::lock_guard lock(state().mutex);
  stream_of(stream).queue->work.push_back({std::move(work), nullptr});
}

void enqueue_when(cudaStream_t stream, std::function<bool()> ready, Work work) {
  if (Work captured = work; capture(stream, captured)) {
    std::fprintf(stderr, "emulated GPU: work that waits for others was captured\n");
    std::abort();
  }
  const std::lock_guard lock(state().mutex);
  stream_of(stream).queue->work.push_back({std::move(work), std::move(ready)});
}

void wait_as_for_memory() {
  if (kernels_wait()) cudaDeviceSynchronize();
}

}  // namespace dsm::emulation

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  const std::lock_guard lock(state().mutex);
  state().streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  work_all(*stream);
  {
    const std::lock_guard lock(state().mutex);
    state().streams.erase(stream);
  }
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!dsm::emulation::allowed_in_capture()) return cudaErrorStreamCaptureUnsupported;
  work_all(stream_of(stream));
  return cudaSuccess;
}

// Nothing goes on by itself, so who asks again and again has to find it done.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (!dsm::emulation::allowed_in_capture()) return cudaErrorStreamCaptureUnsupported;
  return work_all(stream_of(stream).queue, Unready::kLeave) ? cudaSuccess : cudaErrorNotReady;
}

// All streams' work side by side, since kernels may wait for each other's.
cudaError_t cudaDeviceSynchronize() {
  std::vector<std::jthread> at_work;
  work_all(state().default_stream);
  const std::lock_guard lock(state().mutex);
  for (const CUstream_st* stream : state().streams) {
    at_work.emplace_back([queue = stream->queue] { work_all(queue); });
  }
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  dsm::emulation::enqueue(stream, [mark = mark_of(event)] { reach(mark); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  auto mark = std::make_shared<Mark>();
  mark->queue = stream_of(stream).queue;
  {
    const std::lock_guard lock(state().mutex);
    event->mark = mark;
  }
  dsm::emulation::enqueue(stream, [mark] {
    const std::lock_guard lock(state().mutex);
    mark->reached = true;
    mark->when = std::chrono::steady_clock::now();
  });
  return cudaSuccess;
}

// As cudaStreamQuery().
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return reach(mark_of(event), Unready::kLeave) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  reach(mark_of(event));
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const auto begin = mark_of(from);
  const auto end = mark_of(to);
  if (begin == nullptr || end == nullptr) {
    return dsm::emulation::set_error(cudaErrorInvalidValue);
  }
  const std::lock_guard lock(state().mutex);
  if (!begin->reached || !end->reached) return dsm::emulation::set_error(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  dsm::emulation::enqueue(stream, [=] {
    dsm::emulation::close_access();
    function(argument);
  });
  return cudaSuccess;
}
