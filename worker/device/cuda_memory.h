// Memory of a GPU and of the host beside it, freed with its object, and the one check of CUDA's
// errors. For the CUDA backend alone: nothing above it includes a CUDA header.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/device_error.h"

namespace dsm::device {

// A GPU's failure. Most of them stay: what comes after fails as well.
class CudaError : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

// Throws std::bad_alloc or CudaError.
void check(cudaError_t status, const char* what);

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }

  cudaStream_t get() const { return stream_; }
  // What was put off, to be put on the stream before anything else is (cuda_megakernel.h); empty:
  // nothing is put off. Who puts work there calls put_first() before.
  void puts_first(std::function<void()> first) const { first_ = std::move(first); }
  void put_first() const {
    if (first_) first_();
  }
  // How often memory has moved that work on the stream may have used.
  std::uint64_t moves() const { return moves_; }
  void memory_moves() const { ++moves_; }
  void synchronise() const { check(cudaStreamSynchronize(stream_), "wait for the GPU"); }
  bool done() const {
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status == cudaErrorNotReady) return false;
    check(status, "wait for the GPU");
    return true;
  }
  // As synchronise(), or what was told by waits_by(): what is on the stream may wait for other
  // ranks, which may be lost.
  void wait() const {
    put_first();
    if (waiter_) {
      waiter_();
    } else {
      synchronise();
    }
  }
  // Ranks are joined, and kernels on the stream wait for theirs. Empty: they are not any more, and
  // synchronise() waits again.
  void waits_by(std::function<void()> waiter) {
    waiter_ = std::move(waiter);
    if (!waiter_) outgrown_.clear();
  }
  bool has_ranks() const { return static_cast<bool>(waiter_); }
  // Memory that nothing uses any more, to be freed: while ranks are joined it is kept, since
  // cudaFree() and cudaFreeHost() may wait for kernels on other GPUs of the process, and these for
  // what this rank has not started yet.
  void let_go(std::shared_ptr<void> memory) const {
    if (has_ranks()) outgrown_.push_back(std::move(memory));
  }

 private:
  std::function<void()> waiter_;
  mutable std::vector<std::shared_ptr<void>> outgrown_;
  mutable std::function<void()> first_;
  cudaStream_t stream_ = nullptr;
  mutable std::uint64_t moves_ = 0;
};

// A place among the work on a stream.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "create an event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }

  void record(const Stream& stream) { check(cudaEventRecord(event_, stream.get()), "mark work"); }
  // What came before record() is done.
  void wait() const { check(cudaEventSynchronize(event_), "wait for the GPU"); }

 private:
  cudaEvent_t event_ = nullptr;
};

struct FreeDevice {
  int gpu = 0;
  std::size_t bytes = 0;
  bool pooled = false;  // it may be given back in a stream's order
  void operator()(void* memory) const;
};
struct FreeHost {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;
using HostMemory = std::unique_ptr<void, FreeHost>;

// Of the calling thread's GPU; counted (gpu_holdings.h) until it is freed.
DeviceMemory device_memory(std::size_t bytes);
// The same for work on a stream. While ranks are joined, memory that grows in the middle of a step
// is of a pool that takes and gives it back in the stream's order: cudaMalloc() and cudaFree() may
// wait for kernels, as above.
DeviceMemory device_memory(std::size_t bytes, const Stream& stream);
// Frees it, likewise; what the stream does with it comes before.
void let_go(DeviceMemory memory, const Stream& stream);
// Pinned; kernels reach it at the same address.
HostMemory host_memory(std::size_t bytes);

// Memory that grows to the largest use. What an operator on the stream does with it is over, or
// comes before what the next one does.
class Scratch {
 public:
  void* at_least(std::size_t bytes, const Stream& stream);
  // While nothing uses it; what was recorded with it may not be repeated.
  void give_back() {
    memory_.reset();
    size_ = 0;
  }

 private:
  DeviceMemory memory_;
  std::size_t size_ = 0;
};

class SentLists;

// Lists on their way from the host to kernels: put() keeps a copy and gives its address on the
// device, send() puts the copying of all of them on the stream, after which kernels may read them.
// They stand in two buffers in turn. A full one is left alone until the other is full as well, so
// the lists of one operator, which are far smaller than a buffer, stay until it is done. Those that
// the GPU has been sent already (cuda_sent_lists.h) stay where they are.
class Lists {
 public:
  struct Buffer {
    HostMemory host;
    DeviceMemory device;
    std::size_t size = 0;
  };
  static Buffer buffer(std::size_t bytes);

  Lists(const Stream& stream, const SentLists& sent);

  template <class T>
  const T* put(const T* from, std::size_t count) {
    return count == 0 ? nullptr
                      : reinterpret_cast<const T*>(
                            put_bytes(static_cast<const void*>(from), count * sizeof(T)));
  }
  template <class T>
  const T* put(const std::vector<T>& from) {
    return put(from.data(), from.size());
  }
  void send();

  // Bytes that put() has taken so far.
  std::size_t taken() const { return taken_; }
  // put() fills `buffer`, and nothing is sent, until it is called with null.
  void record(Buffer* buffer);

 private:
  const std::byte* put_bytes(const void* from, std::size_t bytes);
  const std::byte* put_recorded(const void* from, std::size_t bytes);
  void next_buffer(std::size_t bytes);

  const Stream& stream_;
  const SentLists& sent_lists_;
  Buffer* recorded_ = nullptr;
  std::size_t recorded_bytes_ = 0;
  std::size_t taken_ = 0;
  Buffer current_;
  Buffer other_;
  std::size_t sent_ = 0;  // [sent_, used_) of the current one waits for send()
  std::size_t used_ = 0;
};

}  // namespace dsm::device
