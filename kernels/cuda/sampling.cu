// Choosing tokens: the CPU's (kernels/choose.h), token by token. What kernels compare and add up
// are the same numbers (draw.h), and neither depends on an order.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/leaders.cuh"
#include "kernels/cuda/narrowing.cuh"
#include "kernels/cuda/sampling.h"
#include "kernels/draw.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kSliceThreads = 256;
// Tokens of a thread block, in the first kernel and in those after it.
constexpr int kChoiceSlice = 1024;
constexpr int kPartSlices = 4;
constexpr int kChoicePart = kPartSlices * kChoiceSlice;

// The best of a slice of a row's tokens; kNoToken (draw.h): there is none.
struct ChoiceSlice {
  double score;
  float logit;
  std::int32_t highest;  // token with this logit
  std::int32_t drawn;    // token with this score
};

struct ChooseLaunch {
  ChooseParams params;
  int slice_count;      // of a row
  NarrowedSums* sums;   // [rows]
  ChoiceSlice* slices;  // [rows, slice_count]
};

__device__ bool draws_narrowed(const Choice& choice) {
  return choice.wanted && choice.temperature > 0 &&
         (choice.top_k > 0 || choice.min_p > 0 || choice.top_p < 1);
}

// A slice of a row's tokens for each thread block.
__global__ void __launch_bounds__(kSliceThreads) choose_slice_kernel(const ChooseLaunch launch) {
  follow_previous_kernel();
  const ChooseParams& p = launch.params;
  const std::int64_t row = blockIdx.y;
  const Choice choice = p.choices[row];
  if (!choice.wanted) return;
  const bool narrowed = draws_narrowed(choice);
  const bool draws = choice.temperature > 0 && !narrowed;
  const int slice = static_cast<int>(blockIdx.x);
  if (narrowed) clear_sums(launch.sums[row], slice, launch.slice_count);
  const float* logits = p.logits + row * p.ld;
  const int begin = slice * kChoiceSlice;
  const int end = min(begin + kChoiceSlice, p.vocab);
  Leader<float> highest;
  Leader<double> drawn;
  for (int token = begin + static_cast<int>(threadIdx.x); token < end; token += kSliceThreads) {
    const float logit = logits[token];
    if (!(logit > -INFINITY)) continue;
    highest.meet(logit, token);
    if (draws) draw(drawn, logit, token, choice.key, choice.temperature);
  }
  highest = leader_of_block<kSliceThreads / 32>(highest);
  if (draws) drawn = leader_of_block<kSliceThreads / 32>(drawn);
  if (threadIdx.x > 0) return;
  launch.slices[row * launch.slice_count + slice] = {drawn.value, highest.value, highest.token,
                                                     drawn.token};
}

// The highest logit of a row whose slices are done. The whole thread block asks.
__device__ Leader<float> highest_of(const ChooseLaunch& launch, std::int64_t row) {
  Leader<float> highest;
  for (int s = static_cast<int>(threadIdx.x); s < launch.slice_count; s += kRowThreads) {
    const ChoiceSlice& slice = launch.slices[row * launch.slice_count + s];
    highest.meet(slice.logit, slice.highest);
  }
  return leader_of_block<kRowThreads / 32>(highest);
}

// Of infinities no probabilities can be made.
__device__ bool has_probabilities(const Leader<float>& highest) {
  return highest.token != kNoToken && highest.value < INFINITY;
}

// A part of a row's tokens for each thread block.
__device__ int part_begin() {
  return static_cast<int>(blockIdx.x) * kChoicePart;
}
__device__ int part_end(const ChooseParams& p) {
  return min(part_begin() + kChoicePart, p.vocab);
}

// The first step of rows that top_k and top_p narrow.
__global__ void __launch_bounds__(kRowThreads) count_part_kernel(const ChooseLaunch launch) {
  follow_previous_kernel();
  __shared__ bool last;
  const std::int64_t row = blockIdx.y;
  const Choice choice = launch.params.choices[row];
  if (!draws_narrowed(choice) || (choice.top_k <= 0 && !(choice.top_p < 1))) return;
  const Leader<float> highest = highest_of(launch, row);
  if (!has_probabilities(highest)) return;
  NarrowedSums& sums = launch.sums[row];
  const NarrowedRow narrowed(launch.params, row, highest.value);
  add_to_bins(narrowed, part_begin(), part_end(launch.params), sums);
  if (last_to_meet(&sums.met, static_cast<int>(gridDim.x), last)) find_cut(choice, sums);
}

// What a thread block has drawn of its part stands in the part's first slice; the last block gives
// the best of all. By all blocks of a row.
__device__ void draw_narrowed(const ChooseLaunch& launch, std::int64_t row,
                              const NarrowedRow& narrowed) {
  __shared__ bool last;
  NarrowedSums& sums = launch.sums[row];
  const Cut cut = sums.cut;
  ChoiceSlice* slices = launch.slices + row * launch.slice_count;
  Leader<double> drawn;
  draw_or_list(narrowed, part_begin(), part_end(launch.params), cut, sums, drawn);
  drawn = leader_of_block<kRowThreads / 32>(drawn);
  if (threadIdx.x == 0) {
    ChoiceSlice& mine = slices[blockIdx.x * kPartSlices];
    mine.score = drawn.value;
    mine.drawn = drawn.token;
  }
  const int parts = static_cast<int>(gridDim.x);
  if (!last_to_meet(&sums.met, parts, last)) return;
  for (int part = static_cast<int>(threadIdx.x); part < parts; part += kRowThreads) {
    const ChoiceSlice& its = slices[part * kPartSlices];
    drawn.meet(__ldcg(&its.score), __ldcg(&its.drawn));
  }
  const OpenTokens open{narrowed, cut, sums.open_tokens, static_cast<int>(__ldcg(&sums.open))};
  draw_open(open, drawn);
  drawn = leader_of_block<kRowThreads / 32>(drawn);
  if (threadIdx.x == 0) launch.params.tokens[row] = drawn.token;
}

// The best of a row's slices, by the first thread block; of a row that is narrowed, the second step
// by all of them.
__global__ void __launch_bounds__(kRowThreads) choose_part_kernel(const ChooseLaunch launch) {
  follow_previous_kernel();
  const std::int64_t row = blockIdx.y;
  const Choice choice = launch.params.choices[row];
  if (!choice.wanted) return;
  const bool narrowed = draws_narrowed(choice);
  if (!narrowed && blockIdx.x > 0) return;
  const Leader<float> highest = highest_of(launch, row);
  const bool draws = choice.temperature > 0 && has_probabilities(highest);
  if (draws && narrowed) {
    return draw_narrowed(launch, row, {launch.params, row, highest.value});
  }
  std::int32_t token = highest.token == kNoToken ? 0 : highest.token;
  if (draws) {
    Leader<double> drawn;
    for (int s = static_cast<int>(threadIdx.x); s < launch.slice_count; s += kRowThreads) {
      const ChoiceSlice& slice = launch.slices[row * launch.slice_count + s];
      drawn.meet(slice.score, slice.drawn);
    }
    token = leader_of_block<kRowThreads / 32>(drawn).token;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) launch.params.tokens[row] = token;
}

__global__ void __launch_bounds__(kSliceThreads) join_columns_kernel(const JoinColumnsParams p) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kSliceThreads + threadIdx.x;
  const std::int64_t part = static_cast<std::int64_t>(p.rows) * p.width;
  if (item >= part * p.parts) return;
  const std::int64_t row = item % part / p.width;
  p.y[(row * p.parts + item / part) * p.width + item % p.width] = p.x[item];
}

}  // namespace

std::size_t choice_scratch_bytes(int rows, int vocab) {
  const auto slices = static_cast<std::size_t>((vocab + kChoiceSlice - 1) / kChoiceSlice);
  return static_cast<std::size_t>(rows) * (sizeof(NarrowedSums) + slices * sizeof(ChoiceSlice));
}

void choose(const ChooseParams& p, void* scratch, Stream stream) {
  auto* sums = static_cast<NarrowedSums*>(scratch);
  const ChooseLaunch of_rows{p, (p.vocab + kChoiceSlice - 1) / kChoiceSlice, sums,
                             reinterpret_cast<ChoiceSlice*>(sums + p.rows)};
  const auto rows = static_cast<unsigned>(p.rows);
  const dim3 slices(static_cast<unsigned>(of_rows.slice_count), rows);
  const dim3 parts(static_cast<unsigned>((p.vocab + kChoicePart - 1) / kChoicePart), rows);
  launch_early(choose_slice_kernel, slices, kSliceThreads, 0, stream, of_rows);
  launch_early(count_part_kernel, parts, kRowThreads, 0, stream, of_rows);
  launch_early(choose_part_kernel, parts, kRowThreads, 0, stream, of_rows);
}

void join_columns(const JoinColumnsParams& p, Stream stream) {
  const std::int64_t items = static_cast<std::int64_t>(p.parts) * p.rows * p.width;
  launch(join_columns_kernel, static_cast<unsigned>((items + kSliceThreads - 1) / kSliceThreads),
         kSliceThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
