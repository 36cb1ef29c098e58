// Work that is put on a stream while it is captured goes into a graph, which can be put on a stream
// again and again. One stream is captured as one sequence; waiting and allocating are forbidden to
// the thread meanwhile, as CUDA forbids them in its thread-local mode.
#pragma once

#include <cstdint>

#include "kernels/cuda/emulation/stream.h"

namespace dsm::emulation {

// Takes the work if the stream is captured.
bool capture(cudaStream_t stream, Work& work);

// False while this thread captures a stream; what it was about to do is then CUDA's last error, and
// the capture fails when it ends.
bool allowed_in_capture();

// By all threads, on all devices: graphs, and kernels that were put on a stream, also to be
// captured.
std::uint64_t graphs_started();
std::uint64_t kernels_started();

}  // namespace dsm::emulation
