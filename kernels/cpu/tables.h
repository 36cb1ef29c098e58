// The tables of kernels/ops.h, bf16_ops.h and integer_ops.h, one per translation unit.
#pragma once

#include "kernels/cpu/bf16_ops.h"
#include "kernels/cpu/integer_ops.h"
#include "kernels/ops.h"

namespace dsm::kernels {

extern const Ops kGenericOps;
extern const IntegerOps kGenericIntegerOps;
#if defined(__x86_64__)
extern const Ops kAvx2Ops;
extern const Ops kAvx512Ops;
extern const Bf16Ops kAmxOps;
extern const IntegerOps kAvx2IntegerOps;
extern const IntegerOps kAvx512IntegerOps;
extern const IntegerOps kVnniIntegerOps;
extern const IntegerOps kAmxIntegerOps;

// Whether the processor has AMX's tiles and what multiplies such (CPUID leaf 7's bits of EDX), and
// the system lets this process use them.
inline constexpr unsigned kAmxBf16 = 22;
inline constexpr unsigned kAmxInt8 = 25;
bool may_use_tiles(unsigned product);
#endif

}  // namespace dsm::kernels
