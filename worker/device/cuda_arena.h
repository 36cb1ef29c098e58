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
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;
  ~DeviceArena();

  // Zeroed on the stream, aligned to 256 bytes.
  void* allocate(std::size_t bytes, const Stream& stream);

 private:
  void count_free(std::size_t bytes);

  ArenaPlan plan_;
  std::vector<DeviceMemory> chunks_;
  std::size_t counted_free_ = 0;  // bytes, in gpu_holdings.h
};

}  // namespace dsm::device
