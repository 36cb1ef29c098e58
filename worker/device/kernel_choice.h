// Which kernels a GPU computes with where there are several. What nobody has measured on a GPU is
// off until somebody asks for it, or until a worker has tried it on its own GPU
// (worker/model/kernel_trials.h). A value: all ranks of a group have the same.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/params.h"

namespace dsm::device {

// Who multiplies many rows in the loose mode. kAuto: the fastest that can: of weights in BF16 and
// integers pairs of thread blocks or the kernel for many rows (kernels/cuda/product_wide.h), with
// both sides in FP8 the kernel for those (product_wide_fp8.h), and a library where these run on no
// such GPU, or by the number of rows. To compare them: kKernel without pairs and whatever the type
// of the weights, and kLibrary without any of the three.
enum class ManyRows : std::uint8_t { kAuto, kKernel, kLibrary };

struct KernelChoice {
  ManyRows many_rows = ManyRows::kAuto;
  // From how many rows on the kernels for many rows multiply by weights in integers, and by weights
  // in FP8 whose rows are not; 1: from as few as they can, 0: never. No GPU has run either yet. Of
  // Llama-8B's gate and up on an H100 what takes integers else needs 218 (INT8) and 152 us for 64
  // rows and 4,409 and 3,363 for 2,048, in BF16 these kernels 104 and 679, and from 17 to 64 rows
  // their time is that of reading the weights. Integers are a half and a quarter of that, and a
  // stage is some 400 instructions of a warp, so 800 cycles of a processor, beside the 1,130 in
  // which it gets a stage of INT8 from memory: that is safe to say without a measurement. Weights
  // in FP8 are not as slow elsewhere: of down the kernel for few takes 117 us for 64 rows and the
  // library 661 for 2,048, where in BF16 it is 64 and 357 here.
  int wide_integers_from = 1;
  int wide_fp8_from = 0;
  // Products in FP8 on both sides of so many rows that pairs of thread blocks could take them are
  // theirs (product_paired_fp8.cu). No GPU has run them.
  bool paired_fp8 = false;
  // From how many rows on the deterministic mode, too, has a kernel for many rows
  // (product_exact.h), whatever the type of the weights; 1 and 0 as above. No GPU has run it, and
  // it has the other kernels' bits only where a GPU's two kinds of products add alike
  // (same_bits.h).
  int wide_exact_from = 0;
  // Steps of decoding of up to so many tokens are one kernel (megakernel.h), as far as it has their
  // operators; 0: none is. No GPU has run it.
  int megakernel_tokens = 0;

  bool operator==(const KernelChoice&) const = default;

  // Whether pairs of thread blocks may be taken.
  bool may_pair() const { return many_rows == ManyRows::kAuto; }
  // From how many rows on the kernels for many rows may multiply by weights of a type that they
  // take, in the deterministic mode if `exact`; 0: never.
  int wide_from(kernels::DType dtype, bool exact) const;
};

// For the log and metrics.
std::string to_string(const KernelChoice& kernels);

// What GPUs have run and been measured with, and nothing else.
KernelChoice proven_kernels();
// Everything that there is.
KernelChoice all_kernels();

}  // namespace dsm::device
