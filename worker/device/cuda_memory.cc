#include "worker/device/cuda_memory.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "worker/device/cuda_sent_lists.h"
#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kListBytes = std::size_t{8} << 20;

std::size_t aligned(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it does not stay
    throw std::bad_alloc();
  }
  throw CudaError(std::string("GPU: cannot ") + what + ": " + cudaGetErrorString(status));
}

DeviceMemory device_memory(std::size_t bytes) {
  void* memory = nullptr;
  int gpu = 0;
  check(cudaGetDevice(&gpu), "ask for its number");
  check(cudaMalloc(&memory, bytes), "allocate memory");
  count_allocated(gpu, static_cast<std::int64_t>(bytes));
  return {memory, FreeDevice{.gpu = gpu, .bytes = bytes}};
}

DeviceMemory device_memory(std::size_t bytes, const Stream& stream) {
  if (!stream.has_ranks()) return device_memory(bytes);
  int gpu = 0;
  int pools = 0;
  check(cudaGetDevice(&gpu), "ask for its number");
  check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, gpu), "ask what it can do");
  if (pools == 0) return device_memory(bytes);
  void* memory = nullptr;
  check(cudaMallocAsync(&memory, bytes, stream.get()), "allocate memory");
  count_allocated(gpu, static_cast<std::int64_t>(bytes));
  return {memory, FreeDevice{.gpu = gpu, .bytes = bytes, .pooled = true}};
}

void let_go(DeviceMemory memory, const Stream& stream) {
  if (memory == nullptr) return;
  const FreeDevice& how = memory.get_deleter();
  if (!how.pooled) return stream.let_go(std::move(memory));
  count_allocated(how.gpu, -static_cast<std::int64_t>(how.bytes));
  check(cudaFreeAsync(memory.release(), stream.get()), "free memory");
}

void FreeDevice::operator()(void* memory) const {
  cudaFree(memory);
  count_allocated(gpu, -static_cast<std::int64_t>(bytes));
}

HostMemory host_memory(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocMapped), "allocate memory of the host");
  return HostMemory(memory);
}

void* Scratch::at_least(std::size_t bytes, const Stream& stream) {
  if (bytes > size_) {
    stream.wait();
    stream.memory_moves();
    size_ = 0;
    let_go(std::move(memory_), stream);
    memory_ = device_memory(bytes, stream);
    size_ = bytes;
  }
  return memory_.get();
}

Lists::Lists(const Stream& stream, const SentLists& sent)
    : stream_(stream),
      sent_lists_(sent),
      current_(buffer(kListBytes)),
      other_(buffer(kListBytes)) {}

Lists::Buffer Lists::buffer(std::size_t bytes) {
  return {host_memory(bytes), device_memory(bytes), bytes};
}

void Lists::next_buffer(std::size_t bytes) {
  send();
  stream_.wait();  // what stands in the other one has been read
  std::swap(current_, other_);
  if (current_.size < bytes) {
    stream_.let_go(std::move(current_.host));
    let_go(std::move(current_.device), stream_);
    current_ = buffer(bytes);
  }
  sent_ = used_ = 0;
}

void Lists::record(Buffer* buffer) {
  recorded_ = buffer;
  recorded_bytes_ = 0;
}

const std::byte* Lists::put_recorded(const void* from, std::size_t bytes) {
  if (recorded_->size - recorded_bytes_ < aligned(bytes)) {
    throw std::logic_error("CUDA backend: the same operators have more lists than before");
  }
  std::memcpy(static_cast<std::byte*>(recorded_->host.get()) + recorded_bytes_, from, bytes);
  const auto* to = static_cast<const std::byte*>(recorded_->device.get()) + recorded_bytes_;
  recorded_bytes_ += aligned(bytes);
  return to;
}

const std::byte* Lists::put_bytes(const void* from, std::size_t bytes) {
  if (const std::byte* there = sent_lists_.find(from, bytes)) return there;
  taken_ += aligned(bytes);
  if (recorded_ != nullptr) return put_recorded(from, bytes);
  if (current_.size - used_ < aligned(bytes)) next_buffer(aligned(bytes));
  std::memcpy(static_cast<std::byte*>(current_.host.get()) + used_, from, bytes);
  const auto* to = static_cast<const std::byte*>(current_.device.get()) + used_;
  used_ += aligned(bytes);
  return to;
}

void Lists::send() {
  stream_.put_first();  // a kernel follows
  if (sent_ == used_ || recorded_ != nullptr) return;
  check(cudaMemcpyAsync(static_cast<std::byte*>(current_.device.get()) + sent_,
                        static_cast<std::byte*>(current_.host.get()) + sent_, used_ - sent_,
                        cudaMemcpyHostToDevice, stream_.get()),
        "copy lists");
  sent_ = used_;
}

}  // namespace dsm::device
