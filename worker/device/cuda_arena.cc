#include "worker/device/cuda_arena.h"

#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

#ifndef DSM_CUDA_CHUNK_BYTES
#define DSM_CUDA_CHUNK_BYTES (std::size_t{32} << 20)
#endif
constexpr std::size_t kChunk = DSM_CUDA_CHUNK_BYTES;

}  // namespace

DeviceArena::Chunk::Chunk(int gpu, std::size_t bytes, bool maps) {
  if (maps) {
    mapped.emplace(gpu, bytes);
    data = mapped->get();
    size = mapped->size();
  } else {
    allocated = device_memory(bytes);
    data = static_cast<std::byte*>(allocated.get());
    size = bytes;
  }
}

DeviceArena::DeviceArena(int gpu, bool sleeps) : plan_(kChunk), gpu_(gpu), sleeps_(sleeps) {}

DeviceArena::~DeviceArena() {
  count_free(0);
}

void DeviceArena::count_free(std::size_t bytes) {
  if (bytes == counted_free_) return;
  const auto more = static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(counted_free_);
  count_unused(gpu_, more);
  counted_free_ = bytes;
}

void* DeviceArena::allocate(std::size_t bytes, const Stream& stream) {
  auto place = plan_.take(bytes);
  if (!place) {
    const std::size_t size = plan_.chunk_for(bytes);
    const Chunk& chunk = chunks_.emplace_back(gpu_, size, sleeps_);
    plan_.add(size);
    check(cudaMemsetAsync(chunk.data, 0, chunk.size, stream.get()), "clear memory");
    place = plan_.take(bytes);
  }
  count_free(plan_.free());
  return chunks_[place->chunk].data + place->offset;
}

void DeviceArena::save(const Stream& stream) {
  try {
    for (Chunk& chunk : chunks_) {
      chunk.saved = host_memory(chunk.size);
      check(cudaMemcpyAsync(chunk.saved.get(), chunk.data, chunk.size, cudaMemcpyDeviceToHost,
                            stream.get()),
            "copy to the host");
    }
  } catch (...) {
    cudaStreamSynchronize(stream.get());  // what is being copied to
    forget_saved();
    throw;
  }
  stream.synchronise();
}

void DeviceArena::give_back() {
  for (Chunk& chunk : chunks_) chunk.mapped->give_back();
  count_free(0);
}

void DeviceArena::take_again(const Stream& stream) {
  for (Chunk& chunk : chunks_) {
    chunk.mapped->take_again();
    if (chunk.saved) {
      check(cudaMemcpyAsync(chunk.data, chunk.saved.get(), chunk.size, cudaMemcpyHostToDevice,
                            stream.get()),
            "copy from the host");
    } else {
      check(cudaMemsetAsync(chunk.data, 0, chunk.size, stream.get()), "clear memory");
    }
  }
  count_free(plan_.free());
}

void DeviceArena::forget_saved() {
  for (Chunk& chunk : chunks_) chunk.saved.reset();
}

}  // namespace dsm::device
