#include "kernels/cuda/emulation/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/cuda/emulation/graph.h"
#include "kernels/cuda/emulation/raw_memory.h"
#include "kernels/cuda/emulation/stream.h"

namespace dsm::emulation {
namespace {

constexpr std::size_t kAlignment = 256;
// 4 GiB, or as many MiB as the variable DSM_EMULATED_MIB says, of all GPUs together.
std::size_t total_bytes() {
  static const std::size_t bytes = [] {
    const char* said = std::getenv("DSM_EMULATED_MIB");
    return std::strtoull(said != nullptr ? said : "4096", nullptr, 10) << 20;
  }();
  return bytes;
}

struct Device {
  std::mutex mutex;
  std::map<const std::byte*, std::size_t, std::less<>> allocations;  // bytes of each
  std::size_t bytes = 0;
  int accesses = 0;
};
Device& device() {
  static Device& device = *new Device;
  return device;
}

void poison(const std::byte* memory, std::size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(memory, bytes);
}
void unpoison(const std::byte* memory, std::size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(memory, bytes);
}

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, kAlignment, std::max<std::size_t>(bytes, 1)) != 0) return nullptr;
  raw_fill(memory, kUnwritten, bytes);
  return memory;
}

enum class Place { kHost, kDevice };

// Where memory is. Ends the process if [memory, memory + bytes) is not all there.
Place place_of(const void* memory, std::size_t bytes, const char* what) {
  const auto* at = static_cast<const std::byte*>(memory);
  {
    Device& all = device();
    const std::lock_guard lock(all.mutex);
    auto next = all.allocations.upper_bound(at);
    if (next != all.allocations.begin()) {
      const auto& [begin, size] = *std::prev(next);
      if (at < begin + size) {
        if (at + bytes <= begin + size) return Place::kDevice;
        std::fprintf(stderr, "emulated GPU: %s goes past the end of device memory: %zu of %zu\n",
                     what, static_cast<std::size_t>(at - begin) + bytes, size);
        std::abort();
      }
    }
  }
  if (__asan_region_is_poisoned != nullptr &&
      __asan_region_is_poisoned(const_cast<void*>(memory), bytes) != nullptr) {
    std::fprintf(stderr, "emulated GPU: %s of memory that is not there (any more)\n", what);
    std::abort();
  }
  return Place::kHost;
}

void check_kind(cudaMemcpyKind kind, Place to, Place from) {
  if (kind == cudaMemcpyDefault) return;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != (to == Place::kDevice) || from_device != (from == Place::kDevice)) {
    std::fprintf(stderr, "emulated GPU: a copy's kind is not that of its memory\n");
    std::abort();
  }
}

void end_access() {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  if (--all.accesses > 0) return;
  for (const auto& [memory, bytes] : all.allocations) poison(memory, bytes);
}

// Of this host thread.
thread_local int works = 0;
thread_local bool stays_open = false;

}  // namespace

DeviceAccess::DeviceAccess() {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  if (all.accesses++ > 0) return;
  for (const auto& [memory, bytes] : all.allocations) unpoison(memory, bytes);
}

DeviceAccess::~DeviceAccess() {
  if (works > 0 && !stays_open) {
    stays_open = true;
  } else {
    end_access();
  }
}

WorkOfStream::WorkOfStream() {
  ++works;
}

WorkOfStream::~WorkOfStream() {
  if (--works == 0) close_access();
}

void close_access() {
  if (std::exchange(stays_open, false)) end_access();
}

bool take_room(std::size_t bytes) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  if (bytes > total_bytes() - all.bytes) return false;
  all.bytes += bytes;
  return true;
}

void give_room(std::size_t bytes) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  all.bytes -= bytes;
}

void enter_memory(std::byte* memory, std::size_t bytes) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  all.allocations[memory] = bytes;
  if (all.accesses == 0) poison(memory, bytes);
}

void leave_memory(std::byte* memory) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  const auto found = all.allocations.find(memory);
  unpoison(found->first, found->second);
  all.allocations.erase(found);
}

bool is_of_device(std::uintptr_t memory, std::size_t bytes) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  const auto* const end = reinterpret_cast<const std::byte*>(memory + bytes);
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  const auto next = all.allocations.lower_bound(end);
  if (next == all.allocations.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return reinterpret_cast<std::uintptr_t>(begin) + size > memory;
}

}  // namespace dsm::emulation

using namespace dsm::emulation;

namespace {

cudaError_t take(void** memory, std::size_t bytes) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  *memory = bytes <= total_bytes() - all.bytes ? allocate(bytes) : nullptr;
  if (*memory == nullptr) return set_error(cudaErrorMemoryAllocation);
  const auto* begin = static_cast<const std::byte*>(*memory);
  all.allocations[begin] = bytes;
  all.bytes += bytes;
  if (all.accesses == 0) poison(begin, bytes);
  return cudaSuccess;
}

cudaError_t give_back(void* memory) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  const auto found = all.allocations.find(static_cast<const std::byte*>(memory));
  if (found == all.allocations.end()) return set_error(cudaErrorInvalidValue);
  unpoison(found->first, found->second);
  all.bytes -= found->second;
  all.allocations.erase(found);
  std::free(memory);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (!allowed_in_capture()) return cudaErrorStreamCaptureUnsupported;
  wait_as_for_memory();
  return take(memory, bytes);
}

cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  wait_as_for_memory();
  return give_back(memory);
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  return take(memory, bytes);
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  enqueue(stream, [memory] { give_back(memory); });
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  if (!allowed_in_capture()) return cudaErrorStreamCaptureUnsupported;
  wait_as_for_memory();
  *memory = allocate(bytes);
  return *memory != nullptr ? cudaSuccess : set_error(cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* memory) {
  wait_as_for_memory();
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  Device& all = device();
  const std::lock_guard lock(all.mutex);
  *total = total_bytes();
  *free = total_bytes() - all.bytes;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  enqueue(stream, [=] {
    check_kind(kind, place_of(to, bytes, "a copy to"), place_of(from, bytes, "a copy from"));
    raw_copy(to, from, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] {
    place_of(to, bytes, "a fill");
    raw_fill(to, value, bytes);
  });
  return cudaSuccess;
}
