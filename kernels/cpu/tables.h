// The tables of kernels/ops.h and bf16_ops.h, one per translation unit.
#pragma once

#include "kernels/cpu/bf16_ops.h"
#include "kernels/ops.h"

namespace dsm::kernels {

extern const Ops kGenericOps;
#if defined(__x86_64__)
extern const Ops kAvx2Ops;
extern const Ops kAvx512Ops;
extern const Bf16Ops kAmxOps;
#endif

}  // namespace dsm::kernels
