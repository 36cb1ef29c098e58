// The tables of kernels/ops.h, one per translation unit.
#pragma once

#include "kernels/ops.h"

namespace dsm::kernels {

extern const Ops kGenericOps;
#if defined(__x86_64__)
extern const Ops kAvx2Ops;
extern const Ops kAvx512Ops;
#endif

}  // namespace dsm::kernels
