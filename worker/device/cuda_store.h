// The memory that a CUDA backend gives out: weights, caches and everything else on the GPU, and
// memory of the host that kernels reach. Of a backend that sleeps the GPU's can go back to it in
// between, and all addresses stay. For the backend's thread.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "worker/device/backend.h"
#include "worker/device/cuda_arena.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class CudaStore {
 public:
  CudaStore(int gpu, bool sleeps, const Stream& stream)
      : stream_(stream),
        sleeps_(sleeps),
        matrices_(gpu, sleeps),
        arena_(gpu, sleeps),
        caches_(gpu, sleeps) {}

  // As Backend's; a matrix is what reserve() gives out.
  void* allocate(std::size_t bytes) { return arena_.allocate(bytes, stream_); }
  void* allocate_matrix(std::size_t bytes) { return matrices_.allocate(bytes, stream_); }
  void* allocate_cache(std::size_t bytes) {
    return (sleeps_ ? caches_ : arena_).allocate(bytes, stream_);
  }
  void* allocate_shared(std::size_t bytes);
  SharedMemory share(std::size_t bytes);
  DeviceArena& arena() { return arena_; }

  // To sleep, while nothing uses the memory: what is kept goes to the host, and then all of it back
  // to the GPU. save() throws std::bad_alloc where the host has no room; then nothing is kept.
  void save();
  void give_back();
  // The memory again, with what was saved.
  void take_again();

 private:
  const Stream& stream_;
  const bool sleeps_;
  DeviceArena matrices_;
  // Everything else, which a rank on trial (kv_room.h) takes alike.
  DeviceArena arena_;
  DeviceArena caches_;  // of one that sleeps: they need not outlive it
  std::vector<HostMemory> shared_;
  // What share() gave and got back, by its size, for the next to ask: results grow in the middle of
  // steps, when nothing may be freed (Stream::let_go()).
  std::multimap<std::size_t, HostMemory> spare_;
};

}  // namespace dsm::device
