// How far the work on a stream has got, for a host that looks on. As launch.h says of its
// functions.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

// ++*count, which it writes to *seen as well: memory of the host. No other stream counts there.
void count_move(std::uint64_t* count, std::uint64_t* seen, Stream stream);

}  // namespace dsm::kernels::cuda
