// Who multiplies many rows on a GPU in the loose mode.
#pragma once

#include <cstdint>

namespace dsm::device {

// kAuto: the fastest that can: of weights in BF16 and integers pairs of thread blocks or the kernel
// for many rows (kernels/cuda/product_wide.h), with both sides in FP8 the kernel for those
// (product_wide_fp8.h), and a library where these run on no such GPU, or by the number of rows. To
// compare them: kKernel without pairs, and kLibrary without any of the three. kUnmeasured: as
// kAuto, and also where nobody has measured whether that is faster (wide_kernel_rows() of
// product_plan.h), as kKernel does.
enum class ManyRows : std::uint8_t { kAuto, kKernel, kLibrary, kUnmeasured };

// Whether pairs of thread blocks may be taken.
constexpr bool may_pair(ManyRows who) {
  return who == ManyRows::kAuto || who == ManyRows::kUnmeasured;
}

}  // namespace dsm::device
