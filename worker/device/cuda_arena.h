// Pieces of large allocations of a GPU, which live as long as the arena. The memory of one that
// sleeps can go back to the GPU in between; the pieces stand where they stood when it has come
// again.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>

#include "worker/device/arena_plan.h"
#include "worker/device/cuda_mapped.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class DeviceArena {
 public:
  // With the chunks that this program is built for. `sleeps`: its memory is mapped (cuda_mapped.h)
  // and not just allocated, and what stands below allocate() may be called.
  DeviceArena(int gpu, bool sleeps);
  explicit DeviceArena(std::size_t chunk_bytes, bool sleeps = false)
      : plan_(chunk_bytes), sleeps_(sleeps) {}
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;
  ~DeviceArena();

  // Zeroed on the stream, aligned to 256 bytes.
  void* allocate(std::size_t bytes, const Stream& stream);

  // Copies what stands in it to the host. Throws std::bad_alloc where the host has no room; then
  // nothing is kept.
  void save(const Stream& stream);
  // While nothing uses it. The host keeps what was saved.
  void give_back();
  // What was saved stands there again, and zeros where nothing was, when the stream has come there.
  void take_again(const Stream& stream);
  // What take_again() has put on the stream is done: the host forgets.
  void forget_saved();

 private:
  struct Chunk {
    std::byte* data = nullptr;
    std::size_t size = 0;
    DeviceMemory allocated;              // of an arena that does not sleep
    std::optional<MappedMemory> mapped;  // of one that does
    HostMemory saved;

    Chunk(int gpu, std::size_t bytes, bool maps);
  };

  void count_free(std::size_t bytes);

  ArenaPlan plan_;
  const int gpu_ = 0;
  const bool sleeps_;
  std::deque<Chunk> chunks_;
  std::size_t counted_free_ = 0;  // bytes, in gpu_holdings.h
};

}  // namespace dsm::device
