// Pieces of large allocations of a GPU, which live as long as the arena.
#pragma once

#include <cstddef>
#include <vector>

#include "worker/device/arena_plan.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class DeviceArena {
 public:
  // With the chunks that this program is built for.
  DeviceArena();
  explicit DeviceArena(std::size_t chunk_bytes) : plan_(chunk_bytes) {}

  // Zeroed on the stream, aligned to 256 bytes.
  void* allocate(std::size_t bytes, const Stream& stream);

 private:
  ArenaPlan plan_;
  std::vector<DeviceMemory> chunks_;
};

}  // namespace dsm::device
