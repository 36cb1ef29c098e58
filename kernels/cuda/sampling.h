// Choosing tokens on a GPU, and what puts logits together for it: as launch.h says.
#pragma once

#include <cstddef>

#include "kernels/choose.h"
#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

// Scratch memory that choose() takes. What stood there before makes no difference.
std::size_t choice_scratch_bytes(int rows, int vocab);
void choose(const ChooseParams& params, void* scratch, Stream stream);

// Parts of rows, one after the other, side by side.
struct JoinColumnsParams {
  const float* x = nullptr;  // [parts, rows, width]
  float* y = nullptr;        // [rows, parts * width]
  int parts = 0;
  int rows = 0;
  int width = 0;
};
void join_columns(const JoinColumnsParams& params, Stream stream);

}  // namespace dsm::kernels::cuda
