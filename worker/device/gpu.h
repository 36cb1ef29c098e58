// What a GPU is beside a Backend: its place in the machine and its memory. Without CUDA there are
// none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/devices.h"

namespace dsm::device {

// PCI addresses ("0000:1B:00.0") of the GPUs that this process's ranks compute on, rank by rank;
// none on a CPU, or where the driver does not tell.
std::vector<std::string> gpu_buses(Device device, int ranks);

// Bytes that are free on the GPU of the calling thread, which has made a backend there. Throws as
// make_backend().
std::int64_t free_gpu_bytes();

}  // namespace dsm::device
