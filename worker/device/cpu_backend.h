// The backend on this machine's processor.
#pragma once

#include <memory>

#include "kernels/cpu/bf16_ops.h"
#include "kernels/ops.h"
#include "worker/device/backend.h"

namespace dsm::device {

// `threads` counts the caller's. `ops` is one of kernels::available_ops(). `bf16`: as
// kernels::bf16_ops(), for products of many rows; null: these are the table's, too.
std::unique_ptr<Backend> make_cpu_backend(int threads,
                                          const kernels::Ops& ops = kernels::best_ops(),
                                          const kernels::Bf16Ops* bf16 = nullptr);

}  // namespace dsm::device
