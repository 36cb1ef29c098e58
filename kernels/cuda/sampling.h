// Choosing tokens on a GPU, and what puts logits together for it: as launch.h says.
#pragma once

#include "kernels/choose.h"
#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

// The best of a slice of a row's tokens; kNoToken (draw.h): there is none.
struct ChoiceSlice {
  double score = 0;
  float logit = 0;
  std::int32_t highest = 0;  // token with this logit
  std::int32_t drawn = 0;    // token with this score
};
inline constexpr int kChoiceSlice = 1024;
constexpr int choice_slices(int vocab) {
  return (vocab + kChoiceSlice - 1) / kChoiceSlice;
}
struct ChooseLaunch {
  ChooseParams params;
  ChoiceSlice* slices = nullptr;  // [rows, choice_slices(vocab)] scratch memory
};
void choose(const ChooseLaunch& launch, Stream stream);

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
