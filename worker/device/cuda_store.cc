#include "worker/device/cuda_store.h"

#include <algorithm>

namespace dsm::device {

void* CudaStore::allocate_shared(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 1);
  shared_.push_back(host_memory(bytes));
  std::fill_n(static_cast<std::byte*>(shared_.back().get()), bytes, std::byte{});
  return shared_.back().get();
}

SharedMemory CudaStore::share(std::size_t bytes) {
  return {static_cast<std::byte*>(host_memory(std::max<std::size_t>(bytes, 1)).release()),
          [](std::byte* memory) { FreeHost{}(memory); }};
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
