// What this process has of each GPU's memory, all of its backends together, for whoever watches
// GPUs: the driver tells of all processes, and of what it needs itself, in one number. Any thread.
#pragma once

#include <cstdint>

namespace dsm::device {

struct GpuHoldings {
  std::int64_t allocated = 0;  // bytes that were asked of the driver
  // Of these, free ends of an arena's chunks: too short for what was asked for, or not asked for
  // yet.
  std::int64_t unused = 0;
};

// `gpu` as CUDA numbers those that the process sees.
GpuHoldings gpu_holdings(int gpu);

// For allocators: so many bytes more, or less.
void count_allocated(int gpu, std::int64_t bytes);
void count_unused(int gpu, std::int64_t bytes);

}  // namespace dsm::device
