// What tests of products by pairs of thread blocks share.
#pragma once

#include <gtest/gtest.h>

#include "kernels/cuda/product_wide.h"
#include "worker/device/backend_fixture.h"

namespace dsm::device {

// A CPU multiplies small matrices only, and on a GPU these have too few pieces for its processors.
inline const bool kOnGpu = !kEmulated && *find_device("auto") == Device::kCuda;

struct PairedShape {
  int n;
  int k;
  int rows;
};

// Fails if pairs would not take it.
inline void expect_paired(int n, int rows) {
  const int processors = kOnGpu ? 132 : 8;  // of an H100, or of the emulated GPU
  EXPECT_TRUE(kernels::cuda::pairs_pay(
      rows, (rows + kernels::cuda::kPairedRows - 1) / kernels::cuda::kPairedRows,
      (n + kernels::kPanel - 1) / kernels::kPanel, processors));
}

}  // namespace dsm::device
