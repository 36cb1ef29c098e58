#include "worker/device/cuda_arena.h"

#include <utility>

#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

#ifndef DSM_CUDA_CHUNK_BYTES
#define DSM_CUDA_CHUNK_BYTES (std::size_t{32} << 20)
#endif
constexpr std::size_t kChunk = DSM_CUDA_CHUNK_BYTES;

}  // namespace

DeviceArena::DeviceArena() : DeviceArena(kChunk) {}

DeviceArena::~DeviceArena() {
  count_free(0);
}

void DeviceArena::count_free(std::size_t bytes) {
  if (bytes == counted_free_) return;
  const auto more = static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(counted_free_);
  count_unused(chunks_.front().get_deleter().gpu, more);
  counted_free_ = bytes;
}

void* DeviceArena::allocate(std::size_t bytes, const Stream& stream) {
  auto place = plan_.take(bytes);
  if (!place) {
    const std::size_t size = plan_.chunk_for(bytes);
    DeviceMemory chunk = device_memory(size);
    check(cudaMemsetAsync(chunk.get(), 0, size, stream.get()), "clear memory");
    chunks_.push_back(std::move(chunk));
    plan_.add(size);
    place = plan_.take(bytes);
  }
  count_free(plan_.free());
  return static_cast<std::byte*>(chunks_[place->chunk].get()) + place->offset;
}

}  // namespace dsm::device
