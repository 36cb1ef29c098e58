// The backend on this machine's processor.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "worker/device/backend.h"

namespace dsm::device {

// `threads` counts the caller's. `ops` is one of kernels::available_ops().
std::unique_ptr<Backend> make_cpu_backend(int threads,
                                          const kernels::Ops& ops = kernels::best_ops());

}  // namespace dsm::device
