#include "worker/device/cuda_store.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace dsm::device {
namespace {

constexpr std::size_t kLeastShared = 4096;

}  // namespace

void* CudaStore::allocate_shared(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 1);
  shared_.push_back(host_memory(bytes));
  std::fill_n(static_cast<std::byte*>(shared_.back().get()), bytes, std::byte{});
  return shared_.back().get();
}

SharedMemory CudaStore::share(std::size_t bytes) {
  // Few sizes, of which the smaller ones together are as much as the largest.
  bytes = std::bit_ceil(std::max<std::size_t>(bytes, kLeastShared));
  auto spare = spare_.extract(bytes);
  HostMemory memory = spare.empty() ? host_memory(bytes) : std::move(spare.mapped());
  return {static_cast<std::byte*>(memory.release()),
          [this, bytes](std::byte* back) { spare_.emplace(bytes, HostMemory(back)); }};
}

void CudaStore::save() {
  matrices_.save(stream_);
  try {
    arena_.save(stream_);
  } catch (...) {
    matrices_.forget_saved();
    throw;
  }
}

void CudaStore::give_back() {
  for (DeviceArena* arena : {&matrices_, &arena_, &caches_}) arena->give_back();
}

void CudaStore::take_again() {
  for (DeviceArena* arena : {&matrices_, &arena_, &caches_}) arena->take_again(stream_);
  stream_.synchronise();
  matrices_.forget_saved();
  arena_.forget_saved();
}

}  // namespace dsm::device
