// Products of the megakernel: one, one for each head, or those of the groups of experts that have
// slots, which the device alone knows. A block takes the list of them to shared memory and goes
// through its units, of which the next one's weights are on their way while it does one.
#pragma once

#include "kernels/cuda/grid_barrier.cuh"
#include "kernels/cuda/megakernel_units.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/product_bf16.cuh"

namespace dsm::kernels::cuda {

static_assert(kMegakernelThreads == kProductThreads);
static_assert(kMegakernelRows == kTileRows);
static_assert(kMegakernelTasks == kMegakernelThreads && kMegakernelTasks == kFewPairs);

// A block has a processor, and its threads all registers: one in which two blocks are has as many
// weights on their way together.
inline constexpr int kMoreSteps = 2;

struct ProductsMemory {
  // What of a task is its own: the others have the same shape.
  struct Task {
    const void* weights;
    const float* x;
    float* y;
    int first_row;
    int rows;
  };

  ProductShared<const float*, 1> product;
  Task tasks[kMegakernelTasks];
  int count;
};

// Rows of a norm that a block makes for its products, and keeps from one of them to the next.
struct NormedRows {
  alignas(16) float values[kNormedBytes / sizeof(float)];
  float warp_sum[kNormThreads / 32];
};

// Which part of a product a unit is: units of a panel's parts follow each other. Which of them
// comes first changes from a block's unit to its next one, since the last part may be the shortest,
// and would be the same blocks' each time.
struct UnitPlace {
  int task;
  int panel;
  int first_span;
};
__device__ __forceinline__ int parts_of(const PackedMatrix& w, int spans_each) {
  return (spans_of(w) + spans_each - 1) / spans_each;
}
__device__ __forceinline__ UnitPlace place_of_unit(const PackedMatrix& w, int panels,
                                                   int spans_each, int number) {
  const int parts = parts_of(w, spans_each);
  const int panel = number / parts;  // of all tasks
  const int turns = panel * parts / static_cast<int>(gridDim.y);
  return {panel / panels, panel % panels, (number % parts + turns) % parts * spans_each};
}
__device__ __forceinline__ ProductWork work_of(const Products& p, const PackedMatrix& w,
                                               int number) {
  const auto [task, panel, first_span] = place_of_unit(w, p.panels, p.spans_each, number);
  return {{0, 0}, task, panel, first_span, end_of_spans(p, w, first_span)};
}

// Where an expert's weights are.
__device__ __forceinline__ const void* weights_of(const ExpertWeights& experts, int expert) {
  return *reinterpret_cast<const void* const*>(experts.list + (1 + expert) * experts.step);
}

template <int kTerms>
class ProductUnits {
 public:
  using Weights = Bf16Weights<kTerms>;

  __device__ __forceinline__ ProductUnits(const MegakernelOp& op, ProductsMemory& memory,
                                          NormedRows& normed)
      : of_(params_of<MegakernelProducts>(op)),
        memory_(memory),
        normed_(normed),
        number_(first_unit(op.first)) {}

  // Which tasks there are. All threads call it.
  __device__ __forceinline__ void take_tasks() {
    const int thread = static_cast<int>(threadIdx.x);
    const bool normed = of_.norm.rows > 0;
    const ProductTask& first = of_.task;
    if (of_.experts.list != nullptr) {
      const int count = *of_.tiles.count;
      const FewTile tile = of_.tiles.tiles[thread];
      if (thread < count) {
        memory_.tasks[thread] = {weights_of(of_.experts, tile.expert),
                                 normed ? normed_.values : first.x + tile.first_slot * of_.x_step,
                                 first.y + tile.first_slot * of_.y_step, tile.first_slot,
                                 tile.rows};
      }
      if (thread == 0) memory_.count = count;
    } else if (thread < of_.products.tile_count) {
      const ProductTask task = of_.products.tile_count == 1 ? first : of_.products.tasks[thread];
      memory_.tasks[thread] = {task.w.data, normed ? normed_.values : task.x, task.y,
                               task.first_row, task.rows};
      if (thread == 0) memory_.count = of_.products.tile_count;
    }
    __syncthreads();
    units_ = memory_.count * of_.products.panels * parts_of(first.w, of_.products.spans_each);
  }
  // The weights of the first unit.
  __device__ __forceinline__ void ask() {
    split_ = split_of(number_);
    stream_.ask(split_);
  }
  // Its rows, if they are a norm's, all of them by each block that has units; `made` is the norm of
  // which the block has them.
  __device__ __forceinline__ void make_rows(int& made) {
    RmsNormParams norm = of_.norm;
    if (norm.rows == 0) return;
    of_.products.ldx = norm.width;
    of_.products.wide_x = true;
    if (number_ >= units_ || made == of_.norm_number) return;
    norm.y = normed_.values;
    norm.ldy = norm.width;
    for (int row = 0; row < norm.rows; ++row) {
      norm_row<kMegakernelThreads>(norm, row, normed_.warp_sum);
      __syncthreads();
    }
    made = of_.norm_number;
  }
  __device__ __forceinline__ void run() {
    const int blocks = static_cast<int>(gridDim.y);
    for (; number_ < units_; number_ += blocks) {
      const ProductWork work = work_of(of_.products, of_.task.w, number_);
      const ProductsMemory::Task& its = memory_.tasks[work.tile_number];
      ProductTask task = of_.task;
      task.w.data = its.weights;
      task.x = its.x;
      task.y = its.y;
      task.first_row = its.first_row;
      task.rows = its.rows;
      product_spans<Weights, 1>(of_.products, task, work, memory_.product, split_, stream_,
                                [&] { return split_of(number_ + blocks); });
    }
  }

 private:
  // This warp's first of a unit; none where there is no such unit.
  __device__ __forceinline__ Bf16Split<true> split_of(int number) const {
    if (number >= units_) return {};
    PackedMatrix w = of_.task.w;
    const ProductWork work = work_of(of_.products, w, number);
    w.data = memory_.tasks[work.tile_number].weights;
    const int thread = static_cast<int>(threadIdx.x);
    return Weights::template split<1>(w, work.panel, work.first_span * kSpanSplits + thread / 32,
                                      thread % 32);
  }

  MegakernelProducts of_;
  ProductsMemory& memory_;
  NormedRows& normed_;
  int number_;
  int units_ = 0;
  Bf16Split<true> split_ = {};
  SplitStream<Bf16Split<true>, kMoreSteps> stream_;
};

// Weights are on their way before the others have arrived.
template <int kTerms>
[[gnu::noinline]] static __device__ int multiply_rows(const MegakernelOp& op, GridBarrier& barrier,
                                                      ProductsMemory& memory, NormedRows& normed,
                                                      int made) {
  ProductUnits<kTerms> units(op, memory, normed);
  if (op.known_early) {
    units.take_tasks();
    units.ask();
  }
  if (op.waits) barrier.wait();
  if (!op.known_early) {
    units.take_tasks();
    units.ask();
  }
  units.make_rows(made);
  units.run();
  return made;
}

// What a warp asks for of its split of a later product, to the second cache, while small operators
// and barriers take their time. With all blocks 17 MiB, which an H100 reads in 6 us; how many of
// them are asked for before they are used, the plan says.
[[gnu::noinline]] static __device__ void ask_for_weights(const AskedWeights& asked) {
  constexpr int kLineBytes = 128;
  constexpr int kInputBytes = kPanel * 2;
  const int number = first_unit(asked.first);
  if (number >= asked.units) return;
  const PackedMatrix& w = asked.w;
  const auto [task, panel, first_span] = place_of_unit(w, asked.panels, asked.spans_each, number);
  const void* data = w.data;
  if (asked.experts.list != nullptr) {
    if (task >= *asked.tiles.count) return;
    data = weights_of(asked.experts, asked.tiles.tiles[task].expert);
  } else if (asked.tasks != nullptr) {
    data = asked.tasks[task].w.data;
  }
  const int thread = static_cast<int>(threadIdx.x);
  const int split = first_span * kSpanSplits + thread / 32;
  const int bytes = (split_end(w, split) - split_begin(w, split)) * kInputBytes;
  const std::int64_t pairs = (w.k + 1) / 2;
  const char* from = static_cast<const char*>(data) + panel * pairs * kPanel * 4 +
                     std::int64_t{split_begin(w, split)} * kInputBytes;
  for (int at = thread % 32 * kLineBytes; at < bytes && at < kAskedBytes; at += 32 * kLineBytes) {
    ask_second_cache(from + at);
  }
}

}  // namespace dsm::kernels::cuda
