// Choosing tokens: the CPU's (kernels/choose.h), token by token. What kernels compare and add up
// are the same numbers (draw.h), and neither depends on an order.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/sampling.h"
#include "kernels/draw.h"

namespace dsm::kernels::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kSliceThreads = 256;
constexpr int kRowThreads = 1024;
// Of a histogram: two for each thread.
constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;

template <class T>
__device__ Leader<T> leader_of_warp(Leader<T> leader) {
  for (int step = 16; step > 0; step /= 2) {
    const T value = __shfl_xor_sync(kAllLanes, leader.value, step);
    const std::int32_t token = __shfl_xor_sync(kAllLanes, leader.token, step);
    leader.meet(value, token);
  }
  return leader;
}

// Of all threads, which are `Warps` warps; the same on all of them.
template <int Warps, class T>
__device__ Leader<T> leader_of_block(Leader<T> leader) {
  __shared__ T values[Warps];
  __shared__ std::int32_t tokens[Warps];
  leader = leader_of_warp(leader);
  __syncthreads();  // what was there before has been read
  if (threadIdx.x % 32 == 0) {
    values[threadIdx.x / 32] = leader.value;
    tokens[threadIdx.x / 32] = leader.token;
  }
  __syncthreads();
  for (int w = 0; w < Warps; ++w) leader.meet(values[w], tokens[w]);
  return leader;
}

__device__ bool narrows_choice(const Choice& choice) {
  return choice.top_k > 0 || choice.min_p > 0 || choice.top_p < 1;
}

// A slice of a row's tokens for each thread block.
__global__ void __launch_bounds__(kSliceThreads) choose_slice_kernel(const ChooseLaunch launch) {
  const ChooseParams& p = launch.params;
  const std::int64_t row = blockIdx.y;
  const Choice choice = p.choices[row];
  if (!choice.wanted) return;
  const bool draws = choice.temperature > 0 && !narrows_choice(choice);
  const float* logits = p.logits + row * p.ld;
  const int begin = static_cast<int>(blockIdx.x) * kChoiceSlice;
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
  launch.slices[row * gridDim.x + blockIdx.x] = {drawn.value, highest.value, highest.token,
                                                 drawn.token};
}

// A row whose choice is narrowed, for one thread block.
struct NarrowedRow {
  const float* logits;
  int vocab;
  float best;
  Choice choice;

  __device__ std::uint64_t mass(float logit) const {
    return mass_of(logit, best, choice.temperature);
  }
};

// The better tokens first: higher logits, of equal ones (the two zeros are) lower tokens.
__device__ std::uint64_t order_of(float logit, int token) {
  const std::uint32_t bits = as_bits(logit + 0.0F);
  const std::uint32_t falling = bits ^ (bits >> 31 != 0 ? 0U : 0x7fffffffU);
  return static_cast<std::uint64_t>(falling) << 32 | static_cast<std::uint32_t>(token);
}

// The sum of what the threads before this one have, and that of all threads.
__device__ std::uint64_t sum_before(std::uint64_t mine, std::uint64_t& total) {
  __shared__ std::uint64_t sums[kRowThreads / 32];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  std::uint64_t up_to = mine;
  for (int step = 1; step < 32; step *= 2) {
    const std::uint64_t other =
        __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(up_to), step);
    if (lane >= step) up_to += other;
  }
  __syncthreads();  // what was there before has been read
  if (lane == 31) sums[warp] = up_to;
  __syncthreads();
  std::uint64_t before = up_to - mine;
  total = 0;
  for (int w = 0; w < kRowThreads / 32; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  return before;
}

// The place in the order of the token with which the weights, added up in that order, reach
// target(the sum of all), which is at most that sum. Its bits are found from the highest on, some
// at a time, by the weights of all tokens that have those found so far. `weight` gives zero to
// tokens that are out of the choice.
template <class Weight, class Target>
__device__ std::uint64_t place_reaching(const NarrowedRow& row, const Weight& weight,
                                        const Target& target) {
  __shared__ unsigned long long histogram[kBins];
  __shared__ std::uint64_t found;
  __shared__ std::uint64_t found_left;
  static_assert(kBins == 2 * kRowThreads && kMaxVocab <= 1 << 2 * kBinBits);
  const int thread = static_cast<int>(threadIdx.x);
  std::uint64_t place = 0;
  std::uint64_t known = 0;  // bits of it
  std::uint64_t left = 0;   // of the target
  // The logit's 32 bits, and a token's, of which the upper ones are zero.
  constexpr int kShifts[] = {53, 42, 31, 11, 0};
  for (const int shift : kShifts) {
    histogram[2 * thread] = 0;
    histogram[2 * thread + 1] = 0;
    __syncthreads();
    for (int token = thread; token < row.vocab; token += kRowThreads) {
      const float logit = row.logits[token];
      if (!(logit > -INFINITY)) continue;
      const std::uint64_t order = order_of(logit, token);
      if ((order & known) != place) continue;
      const std::uint64_t mine = weight(order, logit);
      if (mine > 0) {
        atomicAdd(&histogram[order >> shift & (kBins - 1)], static_cast<unsigned long long>(mine));
      }
    }
    __syncthreads();
    const std::uint64_t first = histogram[2 * thread];
    const std::uint64_t second = histogram[2 * thread + 1];
    std::uint64_t total = 0;
    const std::uint64_t before = sum_before(first + second, total);
    if (known == 0) left = target(total);
    if (before < left && left <= before + first + second) {
      const bool later = left > before + first;
      found = place | static_cast<std::uint64_t>(2 * thread + (later ? 1 : 0)) << shift;
      found_left = left - before - (later ? first : 0);
    }
    __syncthreads();
    place = found;
    left = found_left;
    known = ~std::uint64_t{0} << shift;
  }
  return place;
}

// By the whole thread block; the same on all threads.
__device__ std::int32_t draw_narrowed(const NarrowedRow& row) {
  const Choice& choice = row.choice;
  std::uint64_t last = ~std::uint64_t{0};  // place in the order
  if (choice.top_k > 0) {
    const auto one = [](std::uint64_t, float) { return std::uint64_t{1}; };
    const auto target = [&](std::uint64_t all) {
      const auto most = static_cast<std::uint64_t>(choice.top_k);
      return most < all ? most : all;
    };
    last = place_reaching(row, one, target);
  }
  const std::uint64_t least = least_mass(choice.min_p);
  if (choice.top_p < 1) {
    const std::uint64_t best_k = last;
    const auto mass = [&](std::uint64_t order, float logit) {
      if (order > best_k) return std::uint64_t{0};
      const std::uint64_t mine = row.mass(logit);
      return mine >= least ? mine : 0;
    };
    last = place_reaching(row, mass,
                          [&](std::uint64_t all) { return nucleus_mass(choice.top_p, all); });
  }
  Leader<double> drawn;
  for (int token = static_cast<int>(threadIdx.x); token < row.vocab; token += kRowThreads) {
    const float logit = row.logits[token];
    if (!(logit > -INFINITY) || order_of(logit, token) > last) continue;
    if (least > 0 && row.mass(logit) < least) continue;
    draw(drawn, logit, token, choice.key, choice.temperature);
  }
  return leader_of_block<kRowThreads / 32>(drawn).token;
}

// A thread block for each row: the best of its slices, or the whole row if that is narrowed.
__global__ void __launch_bounds__(kRowThreads)
    choose_row_kernel(const ChooseLaunch launch, int slices) {
  const ChooseParams& p = launch.params;
  const std::int64_t row = blockIdx.x;
  const Choice choice = p.choices[row];
  if (!choice.wanted) return;
  Leader<float> highest;
  Leader<double> drawn;
  for (int s = static_cast<int>(threadIdx.x); s < slices; s += kRowThreads) {
    const ChoiceSlice& slice = launch.slices[row * slices + s];
    highest.meet(slice.logit, slice.highest);
    drawn.meet(slice.score, slice.drawn);
  }
  highest = leader_of_block<kRowThreads / 32>(highest);
  std::int32_t token = highest.token == kNoToken ? 0 : highest.token;
  // Of infinities no probabilities can be made.
  if (choice.temperature > 0 && highest.token != kNoToken && highest.value < INFINITY) {
    if (narrows_choice(choice)) {
      token = draw_narrowed({p.logits + row * p.ld, p.vocab, highest.value, choice});
    } else {
      token = leader_of_block<kRowThreads / 32>(drawn).token;
    }
  }
  if (threadIdx.x == 0) p.tokens[row] = token;
}

__global__ void __launch_bounds__(kSliceThreads) join_columns_kernel(const JoinColumnsParams p) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kSliceThreads + threadIdx.x;
  const std::int64_t part = static_cast<std::int64_t>(p.rows) * p.width;
  if (item >= part * p.parts) return;
  const std::int64_t row = item % part / p.width;
  p.y[(row * p.parts + item / part) * p.width + item % p.width] = p.x[item];
}

}  // namespace

void choose(const ChooseLaunch& p, Stream stream) {
  const int slices = choice_slices(p.params.vocab);
  const auto rows = static_cast<unsigned>(p.params.rows);
  launch(choose_slice_kernel, dim3(static_cast<unsigned>(slices), rows), kSliceThreads, 0, stream,
         p);
  launch(choose_row_kernel, rows, kRowThreads, 0, stream, p, slices);
}

void join_columns(const JoinColumnsParams& p, Stream stream) {
  const std::int64_t items = static_cast<std::int64_t>(p.parts) * p.rows * p.width;
  launch(join_columns_kernel, static_cast<unsigned>((items + kSliceThreads - 1) / kSliceThreads),
         kSliceThreads, 0, stream, p);
}

}  // namespace dsm::kernels::cuda
