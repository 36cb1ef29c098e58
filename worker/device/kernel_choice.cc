#include "worker/device/kernel_choice.h"

#include "kernels/cuda/megakernel.h"

namespace dsm::device {

int KernelChoice::wide_from(kernels::DType dtype, bool exact) const {
  if (exact) return wide_exact_from;
  if (many_rows == ManyRows::kLibrary) return 0;
  if (many_rows == ManyRows::kKernel || dtype == kernels::DType::kBF16) return 1;
  return kernels::is_integer(dtype) ? wide_integers_from : wide_fp8_from;
}

std::string to_string(const KernelChoice& kernels) {
  const auto from = [](int rows) {
    if (rows == 0) return std::string("never");
    return rows == 1 ? "always" : "from " + std::to_string(rows) + " rows";
  };
  const int tokens = kernels.megakernel_tokens;
  return "wide_integers " + from(kernels.wide_integers_from) + ", wide_fp8 " +
         from(kernels.wide_fp8_from) + ", paired_fp8 " + from(kernels.paired_fp8 ? 1 : 0) +
         ", wide_exact " + from(kernels.wide_exact_from) + ", megakernel " +
         (tokens == 0 ? "never" : "up to " + std::to_string(tokens) + " tokens");
}

KernelChoice proven_kernels() {
  KernelChoice proven;
  proven.wide_integers_from = 0;
  return proven;
}

KernelChoice all_kernels() {
  return {.wide_integers_from = 1,
          .wide_fp8_from = 1,
          .paired_fp8 = true,
          .wide_exact_from = 1,
          .megakernel_tokens = kernels::cuda::kMegakernelRows};
}

}  // namespace dsm::device
